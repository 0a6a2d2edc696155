//! The mark of a device whose hardware is gone, which only an unsafe call makes.

/// Somebody answers for it that the hardware of a device reaches no memory any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vanished(pub(super) ());
