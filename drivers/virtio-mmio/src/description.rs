//! Where a device is and how it interrupts, as somebody says who knows.

use core::fmt;
use core::str::FromStr;

use vdpa::platform::{InterruptLine, PhysAddr, Signal};

/// Where the registers of a device are, and its interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The first register.
    pub base: PhysAddr,
    /// How many bytes there are.
    pub size: u64,
    /// Its interrupt.
    pub line: InterruptLine,
}

/// The words are not those of Linux' `virtio_mmio.device=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not <size>@<address>:<interrupt>[:<id>], such as 4K@0xd0000000:5")]
pub struct BadDescription;

impl FromStr for Description {
    type Err = BadDescription;

    /// Reads the value of Linux' `virtio_mmio.device=`. The id, which Linux makes a name of, is
    /// read and forgotten.
    fn from_str(text: &str) -> Result<Self, BadDescription> {
        let (size, rest) = text.split_once('@').ok_or(BadDescription)?;
        let (base, rest) = rest.split_once(':').ok_or(BadDescription)?;
        let (line, id) = match rest.split_once(':') {
            Some((line, id)) => (line, Some(id)),
            None => (rest, None),
        };
        if id.is_some_and(|id| number(id).is_none()) {
            return Err(BadDescription);
        }
        let line = number(line).ok_or(BadDescription)?;
        let size = scaled(size).filter(|size| *size != 0);
        let line = InterruptLine {
            number: u32::try_from(line).map_err(|_| BadDescription)?,
            signal: Signal::Unstated,
        };
        let (base, size) = number(base).zip(size).ok_or(BadDescription)?;
        // No register lies beyond the last address.
        base.checked_add(size).ok_or(BadDescription)?;
        Ok(Self {
            base: PhysAddr(base),
            size,
            line,
        })
    }
}

/// A number and perhaps a unit.
fn scaled(text: &str) -> Option<u64> {
    let mut digits = text.chars();
    let shift = match digits.next_back()?.to_ascii_lowercase() {
        'k' => 10,
        'm' => 20,
        'g' => 30,
        _ => return number(text),
    };
    number(digits.as_str())?.checked_mul(1 << shift)
}

/// A number as C writes it: decimal, or with 0x hexadecimal, or with 0 octal.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix('0') {
        Some(rest) => match rest.strip_prefix(['x', 'X']) {
            Some(digits) => (digits, 16),
            None if rest.is_empty() => (text, 10),
            None => (rest, 8),
        },
        None => (text, 10),
    };
    // `from_str_radix` takes a sign.
    let plain = digits.starts_with(|first: char| first.is_ascii_alphanumeric());
    plain
        .then(|| u64::from_str_radix(digits, radix).ok())
        .flatten()
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.base.0)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<(u64, u64, u32)> {
        let description: Description = text.parse().ok()?;
        let Description { base, size, line } = description;
        Some((size, base.0, line.number))
    }

    #[test]
    fn the_words_of_linux_are_read() {
        for (text, wanted) in [
            ("512@0xfeb00e00:12", (512, 0xfeb0_0e00, 12)),
            ("4K@0xd0000000:5", (4096, 0xd000_0000, 5)),
            ("4k@0xd0000000:5:0", (4096, 0xd000_0000, 5)),
            ("0x200@4096:010:7", (512, 4096, 8)),
            ("1M@0X100000:0", (1 << 20, 0x10_0000, 0)),
        ] {
            assert_eq!(read(text), Some(wanted), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "4K",
            "4K@",
            "4K@0xd0000000",
            "4K@0xd0000000:",
            "@0xd0000000:5",
            "0@0xd0000000:5",
            "K@0xd0000000:5",
            "4T@0xd0000000:5",
            "4K@0x:5",
            "4K@-1:5",
            "4K@+1:5",
            "4K@0x+1:5",
            "4K@1:5:",
            "4K@1:5:a",
            "4K@1:5:0:0",
            "4K@1:4294967296",
            "99999999999999999999@1:5",
            "17179869184G@1:5",
            "4K@09:5",
            "4K@0xffffffffffffffff:5",
        ] {
            assert_eq!(text.parse::<Description>(), Err(BadDescription), "{text}");
        }
        assert!(BadDescription.to_string().contains("4K@0xd0000000:5"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "[0-9xXkKmMgG@:+. -]{0,24}|.{0,24}") {
            let _: Result<Description, _> = text.parse();
        }
    }
}
