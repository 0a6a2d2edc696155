//! Fields of structures in bytes.

use core::ops::Range;

use crate::DecodeError;

/// The bytes of a structure, of which there are as many as it has.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    pub(crate) fn new(bytes: &'a [u8], expected: usize) -> Result<Self, DecodeError> {
        let found = bytes.len();
        if found == expected {
            Ok(Self(bytes))
        } else {
            Err(DecodeError::Length { expected, found })
        }
    }

    /// The bytes of a field, which lies inside.
    pub(crate) fn bytes<const N: usize>(self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[at..at + N]);
        bytes
    }

    pub(crate) fn u8(self, at: usize) -> u8 {
        self.0[at]
    }

    pub(crate) fn u16(self, at: usize) -> u16 {
        u16::from_ne_bytes(self.bytes(at))
    }

    pub(crate) fn u32(self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(at))
    }

    pub(crate) fn u64(self, at: usize) -> u64 {
        u64::from_ne_bytes(self.bytes(at))
    }

    /// Whether reserved bytes are zero.
    pub(crate) fn check_reserved(self, range: Range<usize>) -> Result<(), DecodeError> {
        let zero = self.0[range].iter().all(|byte| *byte == 0);
        zero.then_some(()).ok_or(DecodeError::Reserved)
    }
}

/// Puts a field into a structure, in which it lies.
pub(crate) fn put<const N: usize>(to: &mut [u8], at: usize, field: [u8; N]) {
    to[at..at + N].copy_from_slice(&field);
}
