//! What a user of the client asks for.

/// When a change of the disk counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When the server has it; [`Command::Flush`] makes it last.
    Cached,
    /// When it lasts.
    Durable,
}

/// What becomes of the room under zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// The server may give it back.
    Allowed,
    /// It stays allocated.
    Forbidden,
}

/// A request. Positions and lengths are in bytes, multiples of the export's smallest block, and on
/// the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Reads bytes into the request.
    Read {
        /// Where.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Writes bytes of the request.
    Write {
        /// Where.
        offset: u64,
        /// How many.
        len: u64,
        /// When it is done.
        durability: Durability,
    },
    /// What was written before lasts when this is done.
    Flush,
    /// Nobody needs these bytes any more.
    Trim {
        /// Where.
        offset: u64,
        /// How many.
        len: u64,
        /// When it is done.
        durability: Durability,
    },
    /// Makes bytes zero.
    WriteZeroes {
        /// Where.
        offset: u64,
        /// How many.
        len: u64,
        /// When it is done.
        durability: Durability,
        /// Whether room may be given back.
        holes: Holes,
    },
}

impl Command {
    /// The bytes it is about.
    pub(crate) fn extent(self) -> (u64, u64) {
        match self {
            Self::Flush => (0, 0),
            Self::Read { offset, len }
            | Self::Write { offset, len, .. }
            | Self::Trim { offset, len, .. }
            | Self::WriteZeroes { offset, len, .. } => (offset, len),
        }
    }

    /// The same for other bytes.
    pub(crate) fn with_extent(mut self, at: u64, count: u64) -> Self {
        match &mut self {
            Self::Flush => {}
            Self::Read { offset, len }
            | Self::Write { offset, len, .. }
            | Self::Trim { offset, len, .. }
            | Self::WriteZeroes { offset, len, .. } => (*offset, *len) = (at, count),
        }
        self
    }

    /// When a change counts as done; `None`, if this is none.
    pub(crate) fn durability(self) -> Option<Durability> {
        match self {
            Self::Read { .. } | Self::Flush => None,
            Self::Write { durability, .. }
            | Self::Trim { durability, .. }
            | Self::WriteZeroes { durability, .. } => Some(durability),
        }
    }

    /// How many bytes of data follow the request.
    pub(crate) fn payload(self) -> u64 {
        match self {
            Self::Write { len, .. } => len,
            _ => 0,
        }
    }
}
