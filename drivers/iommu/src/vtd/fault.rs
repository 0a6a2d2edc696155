//! What a unit has refused (VT-d 4.1, 7.3 and 11.4.15).

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use vdpa::Platform;
use vdpa::dma::{DmaFault, DmaFaultKind};
use vdpa::iotlb::Permission;
use vdpa::platform::InterruptVector;
use virtq::Event;

use crate::MESSAGE_WINDOW;

use super::registers::FaultStatus;
use super::unit::Unit;

const RECORD_SIZE: u64 = 16;
/// In the upper half of a record.
const RECORDED: u64 = 1 << 63;
const WAS_READ: u64 = 1 << 62;
/// How long the records of a unit without an interrupt are not looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often they are looked at, at most: a device can make faults as fast as it likes.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// What has been refused so far.
#[derive(Debug, Default)]
pub(super) struct FaultCounts {
    /// Accesses to memory.
    pub(super) accesses: AtomicU64,
    /// Interrupts.
    pub(super) interrupts: AtomicU64,
    /// Those of either whose sender nobody knows.
    pub(super) unknown: AtomicU64,
    /// How often there were more than the unit has records for.
    pub(super) overflows: AtomicU64,
}

/// One record.
#[derive(Clone, Copy, Debug)]
struct Record {
    source: u16,
    reason: u8,
    addr: u64,
    access: Permission,
}

impl Record {
    fn new(low: u64, high: u64) -> Self {
        Self {
            source: high as u16,
            reason: (high >> 32) as u8,
            addr: low & !0xfff,
            access: if high & WAS_READ == 0 {
                Permission::WRITE
            } else {
                Permission::READ
            },
        }
    }

    /// Whether an interrupt was refused (7.1.3).
    fn is_interrupt(&self) -> bool {
        matches!(self.reason, 0x20..=0x2f)
    }

    /// Whether no table leads there, or one does not permit it: the reasons do not tell the two
    /// apart. Anything else is a table that the unit does not understand (7.1.3).
    fn is_refusal(&self) -> bool {
        matches!(
            self.reason,
            0x01 | 0x02 | 0x04..=0x06 | 0x39 | 0x41 | 0x51 | 0x59 | 0x79 | 0x84..=0x86
        )
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bus, function] = self.source.to_be_bytes();
        let (device, function) = (function >> 3, function & 7);
        let what = if self.is_interrupt() {
            "interrupt"
        } else if self.access == Permission::READ {
            "read"
        } else {
            "write"
        };
        let Self { addr, reason, .. } = self;
        write!(
            f,
            "{what} of {bus:02x}:{device:02x}.{function} at {addr:#x} (reason {reason:#x})"
        )
    }
}

/// Looks at what was refused whenever the unit says that there is something, as long as it lives.
pub(super) async fn watch(
    unit: Weak<Unit>,
    platform: Arc<dyn Platform>,
    event: Arc<Event>,
    vector: Option<Box<dyn InterruptVector>>,
) {
    loop {
        let waits = match unit.upgrade() {
            None => return,
            // One that has an error of its queue to tell tells no faults (7.4).
            Some(unit) => vector.is_some() && !unit.is_broken(),
        };
        if waits {
            event.wait().await;
        } else {
            platform.sleep(POLL_INTERVAL).await;
        }
        if let Some(unit) = unit.upgrade()
            && unit.drain_faults() == Drained::Some
        {
            event.raise();
        }
        platform.sleep(LEAST_INTERVAL).await;
    }
}

/// Whether all faults have been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    All,
    Some,
}

impl Unit {
    /// Takes every recorded fault, and lets the unit record others.
    pub(super) fn drain_faults(&self) -> Drained {
        let pending = FaultStatus::PENDING | FaultStatus::OVERFLOW;
        let status = self.registers.fault_status();
        if status.bits() == u32::MAX || !status.intersects(pending) {
            return Drained::All;
        }
        let records = self.capabilities.fault_records();
        let room = self.registers.len().saturating_sub(records.offset) / RECORD_SIZE;
        for index in 0..records.count.min(room) {
            let at = records.offset + index * RECORD_SIZE;
            let high = self.registers.read64_at(at + 8);
            if high & RECORDED == 0 {
                continue;
            }
            let record = Record::new(self.registers.read64_at(at), high);
            self.registers.write_at(at + 12, (RECORDED >> 32) as u32);
            self.report(record);
        }
        if status.contains(FaultStatus::OVERFLOW) {
            self.faults.overflows.fetch_add(1, Ordering::Relaxed);
            // Not earlier: the unit records nothing meanwhile.
            self.registers.clear_fault_status(FaultStatus::OVERFLOW);
        }
        if self.registers.fault_status().intersects(pending) {
            Drained::Some
        } else {
            Drained::All
        }
    }

    fn report(&self, record: Record) {
        let count = if record.is_interrupt() {
            &self.faults.interrupts
        } else {
            &self.faults.accesses
        };
        count.fetch_add(1, Ordering::Relaxed);
        let known = self.known.lock();
        let device = known.get(&record.source);
        let device = device.and_then(|known| Some((known.unit.upgrade()?, known.space.upgrade())));
        drop(known);
        let Some((unit, space)) = device else {
            let count = self.faults.unknown.fetch_add(1, Ordering::Relaxed) + 1;
            if count.is_power_of_two() {
                log::warn!(
                    "{}: DMA fault {count} of devices without driver: {record}",
                    self.name
                );
            }
            return;
        };
        let kind = if record.is_refusal() {
            let is_mapped = space.is_some_and(|space| {
                let space = space.lock();
                space.pages.translate(record.addr).is_some()
            });
            if is_mapped {
                DmaFaultKind::NotPermitted
            } else {
                DmaFaultKind::NotMapped
            }
        } else {
            log::debug!("{}: {record}", self.name);
            DmaFaultKind::Other
        };
        unit.report_fault(DmaFault {
            addr: if record.is_interrupt() {
                MESSAGE_WINDOW.0
            } else {
                record.addr
            },
            access: record.access,
            kind,
        });
    }
}
