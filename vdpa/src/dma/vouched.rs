//! The mark that only an unsafe call makes.

/// Somebody answers for what a client does with a device that reaches all memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vouched(pub(super) ());
