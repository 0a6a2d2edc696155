//! Numbers as people read them. The page's script writes them the same way.

use core::fmt;

/// A count, grouped in threes by narrow blanks: `1 234 567`.
#[derive(Clone, Copy, Debug)]
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NARROW_BLANK: char = '\u{202f}';
        let (groups, first) = (self.0 / 1000, self.0 % 1000);
        if groups == 0 {
            write!(f, "{first}")
        } else {
            write!(f, "{}{NARROW_BLANK}{first:03}", Self(groups))
        }
    }
}

/// A time span in milliseconds, as days, hours, minutes and seconds: `3 s`, `2 min 05 s`.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        let (hours, minutes) = (minutes / 60, minutes % 60);
        let (days, hours) = (hours / 24, hours % 24);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, _) => write!(f, "{minutes} min {seconds:02} s"),
            (0, _, _) => write!(f, "{hours} h {minutes:02} min"),
            _ => write!(f, "{days} d {hours:02} h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn counts_are_grouped() {
        assert_eq!(Count(0).to_string(), "0");
        assert_eq!(Count(999).to_string(), "999");
        assert_eq!(Count(1_002_003).to_string(), "1\u{202f}002\u{202f}003");
    }

    #[test]
    fn spans_show_their_two_largest_units() {
        for (milliseconds, text) in [
            (999, "0 s"),
            (61_000, "1 min 01 s"),
            (3_600_000, "1 h 00 min"),
            (90_000_000, "1 d 01 h"),
        ] {
            assert_eq!(Span(milliseconds).to_string(), text);
        }
    }
}
