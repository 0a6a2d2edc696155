//! Sizes as people read them.

use core::fmt;

/// A size in bytes, with three significant digits: `512 B`, `1.50 KiB`, `64.0 MiB`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let exponent = self.0.ilog2() / 10;
        let unit = UNITS[exponent as usize - 1];
        let (whole, rest) = (
            self.0 >> (10 * exponent),
            self.0 & ((1 << (10 * exponent)) - 1),
        );
        let thousandths = ((u128::from(rest) * 1000) >> (10 * exponent)) as u64;
        match whole {
            0..=9 => write!(f, "{whole}.{:02} {unit}", thousandths / 10),
            10..=99 => write!(f, "{whole}.{} {unit}", thousandths / 100),
            _ => write!(f, "{whole} {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn sizes_keep_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (64 << 20, "64.0 MiB"),
            (1000 << 20, "1000 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
