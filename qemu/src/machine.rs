//! The machine itself: its board and its memory. Devices on it are in [`device`](crate::device).

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use thiserror::Error;

use crate::device::Transport;

/// The board QEMU emulates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub enum Machine {
    /// PCI Express with ECAM and an ICH9 south bridge.
    #[default]
    Q35,
    /// The i440FX: conventional PCI, configuration by ports.
    Pc,
    /// No legacy devices and no PCI: the virtio devices' registers are in memory.
    Microvm,
    /// The same with PCI Express.
    MicrovmPcie,
}

impl Machine {
    /// How its virtio devices are reached.
    pub fn transport(self) -> Transport {
        match self {
            Self::Microvm => Transport::Mmio,
            _ => Transport::Pci,
        }
    }

    /// The value of QEMU's `-machine`.
    pub fn argument(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::Pc => "pc",
            Self::Microvm => "microvm",
            Self::MicrovmPcie => "microvm,pcie=on",
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Q35 => "q35",
            Self::Pc => "pc",
            Self::Microvm => "microvm",
            Self::MicrovmPcie => "microvm-pcie",
        })
    }
}

/// Guest memory in whole MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory {
    mib: u32,
}

/// Why a text is no memory size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// Not a number with a known unit.
    #[error("not a memory size: write 128M or 2G (a bare number counts MiB)")]
    Syntax,
    /// Less than any kernel needs.
    #[error("less than {} MiB, in which no kernel boots", Memory::MIN.mib)]
    TooSmall,
    /// More than QEMU's boards take.
    #[error("more than {} MiB", Memory::MAX.mib)]
    TooLarge,
}

impl Memory {
    const MIN: Self = Self { mib: 4 };
    const MAX: Self = Self { mib: 1 << 20 };

    /// `mib` MiB.
    ///
    /// # Errors
    ///
    /// [`MemoryError::TooSmall`] below 4 MiB, [`MemoryError::TooLarge`] above 1 TiB.
    pub const fn from_mib(mib: u32) -> Result<Self, MemoryError> {
        if mib < Self::MIN.mib {
            return Err(MemoryError::TooSmall);
        }
        if mib > Self::MAX.mib {
            return Err(MemoryError::TooLarge);
        }
        Ok(Self { mib })
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        (self.mib as u64) << 20
    }
}

impl Default for Memory {
    /// 128 MiB.
    fn default() -> Self {
        Self { mib: 128 }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.mib)
    }
}

impl FromStr for Memory {
    type Err = MemoryError;

    fn from_str(text: &str) -> Result<Self, MemoryError> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let mib_per_unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" | "M" | "MB" | "MIB" => 1,
            "G" | "GB" | "GIB" => 1024,
            "T" | "TB" | "TIB" => 1024 * 1024,
            _ => return Err(MemoryError::Syntax),
        };
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(MemoryError::Syntax);
        }
        let mib = digits
            .parse::<u32>()
            .ok()
            .and_then(|count| count.checked_mul(mib_per_unit))
            .ok_or(MemoryError::TooLarge)?;
        Self::from_mib(mib)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes_are_read_with_and_without_units() {
        for (text, mib) in [
            ("128", 128),
            ("128M", 128),
            ("64m", 64),
            ("2G", 2048),
            ("1GiB", 1024),
        ] {
            assert_eq!(text.parse(), Memory::from_mib(mib), "{text}");
        }
        assert_eq!(Memory::from_mib(2048).unwrap().to_string(), "2048M");
    }

    #[test]
    fn nonsense_and_impossible_memory_sizes_are_refused() {
        for text in ["", "M", "-1", "1.5G", "12X", "1 G", "M128"] {
            assert_eq!(text.parse::<Memory>(), Err(MemoryError::Syntax), "{text:?}");
        }
        assert_eq!("0".parse::<Memory>(), Err(MemoryError::TooSmall));
        assert_eq!("3M".parse::<Memory>(), Err(MemoryError::TooSmall));
        for text in ["2T", "4294967295G", "99999999999999999999"] {
            assert_eq!(text.parse::<Memory>(), Err(MemoryError::TooLarge), "{text}");
        }
    }
}
