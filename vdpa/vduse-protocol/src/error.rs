//! What can be wrong with bytes from the other side.

/// Why bytes are no such structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There are more or fewer bytes than the structure has.
    #[error("{found} bytes where there must be {expected}")]
    Length {
        /// How many there must be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A reserved field is not zero.
    #[error("a reserved field is not zero")]
    Reserved,
    /// There is no request of this number.
    #[error("no request {0}")]
    UnknownRequest(u32),
    /// There is no result of this number.
    #[error("no result {0}")]
    UnknownResult(u32),
    /// The name is empty, has no end, or is no text.
    #[error("not a device's name")]
    Name,
    /// A field that says yes or no, or what is permitted, says neither.
    #[error("the value {0} means nothing in its field")]
    Value(u32),
}
