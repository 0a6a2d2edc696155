//! What the queues of a network card have done, under the names of Linux' `vdpa_sim_net`.

use alloc::vec::Vec;

use vdpa::ops::VendorCounter;

/// A receive queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Received {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Buffers that could not be used, and frames for which they did not suffice.
    pub(super) errors: u64,
    /// Frames for which there was no buffer.
    pub(super) overruns: u64,
    /// Frames that are not for this card.
    pub(super) drops: u64,
}

/// A transmit queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transmitted {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Frames that are none, or that could not be read.
    pub(super) errors: u64,
    /// Frames that had nowhere to go.
    pub(super) drops: u64,
}

/// The control queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Controlled {
    pub(super) requests: u64,
    pub(super) successes: u64,
    pub(super) errors: u64,
}

impl Received {
    pub(super) fn list(&self) -> Vec<VendorCounter> {
        Vec::from([
            ("rx packets", self.packets),
            ("rx bytes", self.bytes),
            ("rx errors", self.errors),
            ("rx overruns", self.overruns),
            ("rx drops", self.drops),
        ])
    }
}

impl Transmitted {
    pub(super) fn list(&self) -> Vec<VendorCounter> {
        Vec::from([
            ("tx packets", self.packets),
            ("tx bytes", self.bytes),
            ("tx errors", self.errors),
            ("tx drops", self.drops),
        ])
    }
}

impl Controlled {
    pub(super) fn list(&self) -> Vec<VendorCounter> {
        Vec::from([
            ("cvq requests", self.requests),
            ("cvq successes", self.successes),
            ("cvq errors", self.errors),
        ])
    }
}
