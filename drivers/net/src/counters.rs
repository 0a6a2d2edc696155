//! What an interface has done, counted by the one who does it and read by anybody.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::drop_reason::DropReason;

/// The counters of one interface.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) rx_packets: Counter,
    pub(super) rx_bytes: Counter,
    pub(super) tx_packets: Counter,
    pub(super) tx_bytes: Counter,
    /// Frames that the stack made longer than the MTU allows.
    pub(super) tx_too_long: Counter,
    /// Frames sent while the device was broken or gone.
    pub(super) tx_no_device: Counter,
    rx_dropped: [Counter; DropReason::ALL.len()],
}

impl Counters {
    /// A received frame was not handed on.
    pub(super) fn drop_received(&self, reason: DropReason) {
        self.rx_dropped[reason as usize].add(1);
    }

    /// The counters as facts of a report; of the drops only those that happened.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::from([
            ("rx packets", self.rx_packets.get().to_string()),
            ("rx bytes", self.rx_bytes.get().to_string()),
            ("tx packets", self.tx_packets.get().to_string()),
            ("tx bytes", self.tx_bytes.get().to_string()),
        ]);
        let received = DropReason::ALL.map(|reason| {
            (
                "rx dropped",
                reason.as_str(),
                self.rx_dropped[reason as usize].get(),
            )
        });
        let sent = [
            ("tx dropped", "too long", self.tx_too_long.get()),
            ("tx dropped", "no device", self.tx_no_device.get()),
        ];
        for (name, reason, count) in received.into_iter().chain(sent).filter(|drop| drop.2 > 0) {
            facts.push((name, format!("{count} ({reason})")));
        }
        facts
    }
}

/// A counter with one writer at a time: the interface, behind `&mut`. So no locked instruction.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, amount: usize) {
        let amount = u64::try_from(amount).expect("usize is at most 64 bits");
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
