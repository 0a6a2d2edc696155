//! Dates in the two shapes that the site needs: the HTTP date and the one people read in a listing.

use core::fmt;

use hadris_fs::DateTime;

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
    fn a_listing_shows_minutes() {
        assert_eq!(
            ListingDate(at(1_709_210_096)).to_string(),
            "2024-02-29 12:34"
        );
    }
}
