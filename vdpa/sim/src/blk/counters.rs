//! What a queue of a disk has done.

use alloc::vec::Vec;

use vdpa::ops::VendorCounter;

/// What a queue has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) reads: u64,
    pub(super) read_bytes: u64,
    pub(super) writes: u64,
    pub(super) written_bytes: u64,
    pub(super) flushes: u64,
    pub(super) discards: u64,
    pub(super) write_zeroes: u64,
    /// Requests that failed, or that the disk does not know.
    pub(super) errors: u64,
}

impl Counters {
    pub(super) fn list(&self) -> Vec<VendorCounter> {
        Vec::from([
            ("reads", self.reads),
            ("read bytes", self.read_bytes),
            ("writes", self.writes),
            ("written bytes", self.written_bytes),
            ("flushes", self.flushes),
            ("discards", self.discards),
            ("write zeroes", self.write_zeroes),
            ("errors", self.errors),
        ])
    }
}
