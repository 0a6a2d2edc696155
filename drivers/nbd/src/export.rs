//! What a server says of an export, checked.

use super::error::Error;

/// Transmission flags.
const HAS_FLAGS: u16 = 1;
const READ_ONLY: u16 = 1 << 1;
const SEND_FLUSH: u16 = 1 << 2;
const SEND_FUA: u16 = 1 << 3;
const SEND_TRIM: u16 = 1 << 5;
const SEND_WRITE_ZEROES: u16 = 1 << 6;
/// Those that matter here. A newer server may have more of the others than the one before it.
const KNOWN: u16 = READ_ONLY | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES;

/// The most data of a request to a server that does not say.
const DEFAULT_MAX: u32 = 32 << 20;
/// The smallest block of a server that does not say.
const DEFAULT_MIN: u32 = 512;
/// The smallest largest request that there may be: one block of who says nothing of blocks.
const MAX_MIN: u32 = DEFAULT_MIN;
/// The largest smallest block that there may be.
const MIN_MAX: u32 = 64 << 10;

/// The sizes that requests must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Positions and lengths are multiples of it: a power of two.
    pub min: u32,
    /// The most bytes of one request.
    pub max: u32,
}

impl Default for BlockSizes {
    fn default() -> Self {
        Self {
            min: DEFAULT_MIN,
            max: DEFAULT_MAX,
        }
    }
}

impl BlockSizes {
    /// The sizes of `NBD_INFO_BLOCK_SIZE`.
    pub(crate) fn new(min: u32, preferred: u32, max: u32) -> Result<Self, Error> {
        let plausible = min.is_power_of_two()
            && min <= MIN_MAX
            && preferred.is_power_of_two()
            && preferred >= min
            && max >= min.max(MAX_MIN);
        if !plausible {
            return Err(Error::Sizes);
        }
        Ok(Self {
            min,
            max: max - max % min,
        })
    }
}

/// An export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    size: u64,
    flags: u16,
    blocks: BlockSizes,
}

impl Export {
    pub(crate) fn new(size: u64, flags: u16, blocks: Option<BlockSizes>) -> Result<Self, Error> {
        // Positions are signed in most servers.
        if size > i64::MAX as u64 {
            return Err(Error::Sizes);
        }
        // Without this flag the others mean nothing.
        let flags = if flags & HAS_FLAGS == 0 {
            0
        } else {
            flags & KNOWN
        };
        Ok(Self {
            size,
            flags,
            blocks: blocks.unwrap_or_default(),
        })
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The sizes that requests must have.
    #[must_use]
    pub fn blocks(&self) -> BlockSizes {
        self.blocks
    }

    /// Whether it cannot be written.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.has(READ_ONLY)
    }

    /// Whether [`Flush`](super::Command::Flush) may be sent.
    #[must_use]
    pub fn has_flush(&self) -> bool {
        self.has(SEND_FLUSH)
    }

    /// Whether requests can be durable by themselves.
    #[must_use]
    pub fn has_fua(&self) -> bool {
        self.has(SEND_FUA)
    }

    /// Whether [`Trim`](super::Command::Trim) may be sent.
    #[must_use]
    pub fn has_trim(&self) -> bool {
        self.has(SEND_TRIM)
    }

    /// Whether [`WriteZeroes`](super::Command::WriteZeroes) may be sent.
    #[must_use]
    pub fn has_write_zeroes(&self) -> bool {
        self.has(SEND_WRITE_ZEROES)
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_sizes_are_refused() {
        for (min, preferred, max) in [
            (0, 4096, 1 << 25),
            (3, 4096, 1 << 25),
            (1 << 17, 1 << 17, 1 << 25),
            (512, 0, 1 << 25),
            (512, 256, 1 << 25),
            (512, 4097, 1 << 25),
            (4096, 4096, 512),
            (1, 1, 0),
            (1, 1, 511),
        ] {
            let sizes = BlockSizes::new(min, preferred, max);
            assert_eq!(sizes, Err(Error::Sizes), "{min} {preferred} {max}");
        }
        let sizes = BlockSizes::new(512, 4096, u32::MAX).unwrap();
        assert_eq!((sizes.min, sizes.max), (512, u32::MAX - 511));
        assert_eq!(Export::new(1 << 63, 1, None), Err(Error::Sizes));
    }

    #[test]
    fn flags_without_the_first_one_mean_nothing() {
        let export = Export::new(512, 0xfffe, None).unwrap();
        assert!(!export.is_read_only() && !export.has_flush());
        let export = Export::new(512, 0x7f, None).unwrap();
        assert!(export.is_read_only() && export.has_flush() && export.has_fua());
        assert!(export.has_trim() && export.has_write_zeroes());
    }

    #[test]
    fn flags_that_do_not_matter_make_no_other_export() {
        let [export, newer] = [0x65, 0xd65].map(|flags| Export::new(512, flags, None));
        assert_eq!(export, newer);
        assert_ne!(export, Export::new(512, 0x45, None));
    }
}
