//! Replies of the transmission phase, out of bytes that come in pieces.

use super::error::Error;
use super::wire;

const SIMPLE_LEN: usize = 16;
const CHUNK_LEN: usize = 20;
/// What an error has before its text.
const ERROR_LEN: u32 = 6;
/// The same with the place of the error behind the text.
const ERROR_OFFSET_LEN: u32 = ERROR_LEN + 8;
/// The longest text of an error.
const TEXT_MAX: u32 = 4096;

/// The head of a reply, or of one chunk of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Simple {
        cookie: u64,
        error: u32,
    },
    Chunk {
        cookie: u64,
        is_last: bool,
        body: Body,
    },
}

/// What a chunk has behind its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Nothing,
    /// A position, and so many bytes of data.
    Data(u32),
    /// A position and a length.
    Hole,
    /// An error, and so many bytes that do not matter.
    Error(u32),
}

/// Fixed fields of a reply, as they come.
#[derive(Debug)]
pub(crate) struct Fields {
    bytes: [u8; CHUNK_LEN],
    len: usize,
}

impl Fields {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; CHUNK_LEN],
            len: 0,
        }
    }

    /// Takes from `rest` until there are `wanted` bytes, and says whether there are.
    fn fill(&mut self, rest: &mut &[u8], wanted: usize) -> bool {
        let missing = wanted.saturating_sub(self.len).min(rest.len());
        let (taken, others) = rest.split_at(missing);
        *rest = others;
        self.bytes[self.len..][..missing].copy_from_slice(taken);
        self.len += missing;
        self.len >= wanted
    }

    /// The head of a reply, if it is complete.
    pub(crate) fn head(&mut self, rest: &mut &[u8]) -> Result<Option<Head>, Error> {
        if !self.fill(rest, 4) {
            return Ok(None);
        }
        match wire::be32(&self.bytes, 0) {
            wire::SIMPLE_REPLY => Ok(self.fill(rest, SIMPLE_LEN).then(|| Head::Simple {
                error: wire::be32(&self.bytes, 4),
                cookie: wire::be64(&self.bytes, 8),
            })),
            wire::STRUCTURED_REPLY => {
                let complete = self.fill(rest, CHUNK_LEN);
                complete.then(|| self.chunk()).transpose()
            }
            _ => Err(Error::Reply),
        }
    }

    fn chunk(&self) -> Result<Head, Error> {
        let (flags, kind) = (wire::be16(&self.bytes, 4), wire::be16(&self.bytes, 6));
        let len = wire::be32(&self.bytes, 16);
        let is_last = flags & wire::REPLY_FLAG_DONE != 0;
        let text_max = ERROR_OFFSET_LEN + TEXT_MAX;
        let body = match kind {
            wire::REPLY_NONE if len == 0 && is_last => Body::Nothing,
            wire::REPLY_OFFSET_DATA if len > 8 => Body::Data(len - 8),
            wire::REPLY_OFFSET_HOLE if len == 12 => Body::Hole,
            wire::REPLY_ERROR_OFFSET if len < ERROR_OFFSET_LEN => return Err(Error::Chunk),
            _ if kind & wire::REPLY_ERROR != 0 && (ERROR_LEN..=text_max).contains(&len) => {
                Body::Error(len - ERROR_LEN)
            }
            _ => return Err(Error::Chunk),
        };
        Ok(Head::Chunk {
            cookie: wire::be64(&self.bytes, 8),
            is_last,
            body,
        })
    }

    /// The position of data, if it is complete.
    pub(crate) fn position(&mut self, rest: &mut &[u8]) -> Option<u64> {
        self.fill(rest, 8).then(|| wire::be64(&self.bytes, 0))
    }

    /// Position and length of a hole, if they are complete.
    pub(crate) fn hole(&mut self, rest: &mut &[u8]) -> Option<(u64, u32)> {
        let bytes = self.fill(rest, 12).then_some(&self.bytes)?;
        Some((wire::be64(bytes, 0), wire::be32(bytes, 8)))
    }

    /// The number of an error and the length of its text, if they are complete.
    pub(crate) fn error(&mut self, rest: &mut &[u8]) -> Option<(u32, u16)> {
        let bytes = self.fill(rest, 6).then_some(&self.bytes)?;
        Some((wire::be32(bytes, 0), wire::be16(bytes, 4)))
    }
}
