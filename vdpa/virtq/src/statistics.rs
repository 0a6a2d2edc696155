//! Live counters of a queue, for people and for tests.

use core::sync::atomic::{AtomicU64, Ordering};

/// The counters of one queue. The queue alone writes them; anybody may read them at any time.
#[derive(Debug, Default)]
pub struct Statistics {
    pub(crate) added: AtomicU64,
    used: AtomicU64,
    pub(crate) kicks: AtomicU64,
    pub(crate) suppressed: AtomicU64,
}

/// The counters of a queue at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Chains made available to the device.
    pub added: u64,
    /// Chains that the device has used and the driver has taken back.
    pub used: u64,
    /// Publications that the device wanted to be notified of.
    pub kicks: u64,
    /// Publications that needed no notification.
    pub suppressed: u64,
}

impl Statistics {
    /// All counters now. Each is exact; together they may straddle an operation.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            added: self.added.load(Ordering::Relaxed),
            used: self.used.load(Ordering::Relaxed),
            kicks: self.kicks.load(Ordering::Relaxed),
            suppressed: self.suppressed.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn count_publication(&self, chains: u64, notified: bool) {
        bump(&self.added, chains);
        bump(
            if notified {
                &self.kicks
            } else {
                &self.suppressed
            },
            1,
        );
    }

    pub(crate) fn count_used(&self) {
        bump(&self.used, 1);
    }
}

/// Adds without a locked instruction: the queue, behind `&mut`, is the only writer.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}
