//! The `Range` header: which bytes of a file a client asks for (RFC 9110, 14.1 and 14.2).
//!
//! One range is served. A set of several ranges is answered with the whole file, as section 14.2
//! allows a server to do.

use core::ops::Range;

/// What a `Range` header asks for, measured against the length of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The whole file: no range, one that is not understood, or several.
    Whole,
    /// These bytes; never empty, and inside the file.
    Part(Range<u64>),
    /// A range that lies outside the file.
    Unsatisfiable,
}

/// Reads the value of a `Range` header for a file of `length` bytes.
#[must_use]
pub fn select(value: &str, length: u64) -> Selection {
    let Some((unit, set)) = value.split_once('=') else {
        return Selection::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else {
        return Selection::Whole;
    };
    match (position(first), position(last)) {
        (Position::Absent, Position::At(suffix)) => match suffix.min(length) {
            0 => Selection::Unsatisfiable,
            suffix => Selection::Part(length - suffix..length),
        },
        (Position::At(first), Position::At(last)) if last < first => Selection::Whole,
        (Position::At(first), _) if first >= length => Selection::Unsatisfiable,
        (Position::At(first), Position::Absent) => Selection::Part(first..length),
        (Position::At(first), Position::At(last)) => {
            Selection::Part(first..last.saturating_add(1).min(length))
        }
        _ => Selection::Whole,
    }
}

enum Position {
    Absent,
    At(u64),
    Malformed,
}

/// A byte position. Digits that exceed 64 bits mean a position behind every file.
fn position(text: &str) -> Position {
    let text = text.trim();
    if text.is_empty() {
        Position::Absent
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Position::At(text.parse().unwrap_or(u64::MAX))
    } else {
        Position::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_selects_its_bytes() {
        assert_eq!(select("bytes=0-0", 10), Selection::Part(0..1));
        assert_eq!(select("bytes=2-5", 10), Selection::Part(2..6));
        assert_eq!(select("bytes=7-", 10), Selection::Part(7..10));
        assert_eq!(select("bytes=-3", 10), Selection::Part(7..10));
        assert_eq!(select("Bytes = 1 - 2 ", 10), Selection::Part(1..3));
    }

    #[test]
    fn a_range_is_cut_at_the_end_of_the_file() {
        assert_eq!(select("bytes=5-99", 10), Selection::Part(5..10));
        assert_eq!(select("bytes=-99", 10), Selection::Part(0..10));
        assert_eq!(
            select("bytes=5-99999999999999999999999", 10),
            Selection::Part(5..10)
        );
        assert_eq!(
            select("bytes=5-18446744073709551615", 10),
            Selection::Part(5..10)
        );
    }

    #[test]
    fn a_range_behind_the_end_is_unsatisfiable() {
        assert_eq!(select("bytes=10-", 10), Selection::Unsatisfiable);
        assert_eq!(select("bytes=10-12", 10), Selection::Unsatisfiable);
        assert_eq!(select("bytes=-0", 10), Selection::Unsatisfiable);
        assert_eq!(select("bytes=0-", 0), Selection::Unsatisfiable);
        assert_eq!(select("bytes=-5", 0), Selection::Unsatisfiable);
    }

    #[test]
    fn what_is_not_one_byte_range_means_the_whole_file() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=x-1",
            "bytes=5-2",
            "bytes=0-1,3-4",
            "lines=1-2",
            "bytes=+1-2",
        ] {
            assert_eq!(select(value, 10), Selection::Whole, "{value}");
        }
    }
}
