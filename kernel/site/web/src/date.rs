//! Dates in the two shapes that the site needs: the HTTP date and the one people read in a listing.

use core::fmt;

use hadris_fs::{CivilDate, CivilTime, DateTime};

/// The date of HTTP headers, always in GMT (RFC 9110, 5.6.7).
#[derive(Clone, Copy, Debug)]
pub struct HttpDate(pub DateTime);

impl fmt::Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECONDS_PER_DAY: i64 = 24 * 60 * 60;
        let (date, time) = self.0.to_civil_utc();
        let days = self.0.unix_seconds().div_euclid(SECONDS_PER_DAY);
        write!(
            f,
            "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
            weekday(days),
            date.day(),
            month(date.month()),
            date.year(),
            time.hour(),
            time.minute(),
            time.second()
        )
    }
}

impl HttpDate {
    /// Reads a date in one of the three formats that clients may use. `None`, if it is none.
    ///
    /// The day of the week is not looked at, and the two digits of a year in the format of RFC 850
    /// stand for one from 1970 to 2069.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text
            .split([' ', ',', '-'])
            .filter(|word| !word.is_empty())
            .skip(1);
        let mut word = || words.next();
        let (first, second, third, fourth) = (word()?, word()?, word()?, word()?);
        let (day, month, year, time) = if third.contains(':') {
            // As C's `asctime` writes it: without a zone.
            (second, first, fourth, third)
        } else if word() == Some("GMT") {
            (first, second, third, fourth)
        } else {
            return None;
        };
        if word().is_some() {
            return None;
        }
        let year = match (year.len(), number(year)?) {
            (2, year @ 70..) => 1900 + year,
            (2, year) => 2000 + year,
            (4, year) => year,
            _ => return None,
        };
        let month = (1..=12).find(|number| self::month(*number) == month)?;
        let date = CivilDate::new(i32::from(year), month, number(day)?.try_into().ok()?).ok()?;
        let mut parts = time.split(':');
        let mut part = || u8::try_from(number(parts.next().filter(|part| part.len() == 2)?)?).ok();
        let (hour, minute, second) = (part()?, part()?, part()?);
        // The last second of a day may be a leap second.
        let time = CivilTime::new(hour, minute, second.min(59)).ok()?;
        if parts.next().is_some() || second > 60 {
            return None;
        }
        DateTime::from_civil(date, time, None).ok().map(Self)
    }
}

/// A number of digits alone.
fn number(digits: &str) -> Option<u16> {
    if digits.starts_with('+') {
        return None;
    }
    digits.parse().ok()
}

/// The date of a listing, to the minute (ISO 8601 with a blank).
#[derive(Clone, Copy, Debug)]
pub struct ListingDate(pub DateTime);

impl fmt::Display for ListingDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = self.0.to_civil();
        let (year, month, day) = (date.year(), date.month(), date.day());
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {:02}:{:02}",
            time.hour(),
            time.minute()
        )
    }
}

/// The name of a day counted from 1970-01-01, which was a Thursday.
fn weekday(days_since_epoch: i64) -> &'static str {
    match days_since_epoch.rem_euclid(7) {
        0 => "Thu",
        1 => "Fri",
        2 => "Sat",
        3 => "Sun",
        4 => "Mon",
        5 => "Tue",
        _ => "Wed",
    }
}

fn month(number: u8) -> &'static str {
    match number {
        1 => "Jan",
        2 => "Feb",
        3 => "Mar",
        4 => "Apr",
        5 => "May",
        6 => "Jun",
        7 => "Jul",
        8 => "Aug",
        9 => "Sep",
        10 => "Oct",
        11 => "Nov",
        _ => "Dec",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn at(unix_seconds: i64) -> DateTime {
        DateTime::from_unix_seconds(unix_seconds).unwrap()
    }

    #[test]
    fn the_http_date_is_that_of_the_rfc() {
        assert_eq!(
            HttpDate(at(784_111_777)).to_string(),
            "Sun, 06 Nov 1994 08:49:37 GMT"
        );
        assert_eq!(HttpDate(at(0)).to_string(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(
            HttpDate(at(1_709_210_096)).to_string(),
            "Thu, 29 Feb 2024 12:34:56 GMT"
        );
    }

    #[test]
    fn the_http_date_is_gmt_wherever_the_file_was_written() {
        let date = at(784_111_777).with_utc_offset_minutes(Some(120)).unwrap();
        assert_eq!(HttpDate(date).to_string(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn a_date_is_read_in_all_three_formats_and_in_no_other() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Thursday, 29-Feb-24 12:34:56 GMT", Some(1_709_210_096)),
            ("Thu Feb 29 12:34:56 2024", Some(1_709_210_096)),
            ("Sat, 31 Dec 2016 23:59:60 GMT", Some(1_483_228_799)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT x", None),
            ("Sun, 06 Nov 994 08:49:37 GMT", None),
            ("Sun, 06 Nov +994 08:49:37 GMT", None),
            ("Sun, 06 nov 1994 08:49:37 GMT", None),
            ("Sun, 31 Nov 1994 08:49:37 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:61 GMT", None),
            ("Sun, 06 Nov 1994 8:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37:00 GMT", None),
            ("Sun, 99999 Nov 1994 08:49:37 GMT", None),
            ("784111777", None),
            ("", None),
        ] {
            let read = HttpDate::parse(text).map(|date| date.0.unix_seconds());
            assert_eq!(read, expected, "{text:?}");
        }
    }

    #[test]
    fn a_listing_shows_minutes() {
        assert_eq!(
            ListingDate(at(1_709_210_096)).to_string(),
            "2024-02-29 12:34"
        );
    }
}
