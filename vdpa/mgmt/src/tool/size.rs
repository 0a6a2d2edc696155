//! Sizes as people write them.

const SECTOR: u64 = 512;

/// A whole number of sectors of 512 bytes, from a number of bytes with or without `K`, `M` or `G`.
pub(crate) fn sectors(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..)? {
        "" => 1,
        "K" | "k" => 1 << 10,
        "M" | "m" => 1 << 20,
        "G" | "g" => 1 << 30,
        _ => return None,
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let bytes = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    bytes.is_multiple_of(SECTOR).then_some(bytes / SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_bytes_unless_it_says_otherwise() {
        for (text, expected) in [
            ("0", Some(0)),
            ("512", Some(1)),
            ("4K", Some(8)),
            ("64M", Some(131_072)),
            ("1g", Some(2_097_152)),
            ("513", None),
            ("1T", None),
            ("M", None),
            ("", None),
            ("-512", None),
            ("+512", None),
            ("17179869184G", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(sectors(text), expected, "{text:?}");
        }
    }
}
