//! What lies where in the BARs.

use std::ops::Range;

use crate::plan::{Place, Plan, VirtioCap, bits};

/// The common configuration up to `queue_device`, as VIRTIO 1.0 has it, and up to `queue_reset`.
const COMMON: Range<u64> = 0..0x38;
const COMMON_WITH_RESET: Range<u64> = 0..0x3c;
const ISR: Range<u64> = 0x40..0x41;
const DEVICE: u64 = 0x80;
const NOTIFY: u64 = 0x1000;
/// The BAR of the MSI-X table.
pub(crate) const MSIX_BAR: u8 = 2;
/// The BAR of the live-migration block.
pub(crate) const BLOCK_BAR: u8 = 4;
/// Where the pending bits follow the table.
pub(crate) const PENDING: u64 = 0x1000;
const MSIX_SIZE: u64 = 0x2000;
const PAGE: u64 = 4096;

/// A virtio structure, and what is where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Structure {
    Common,
    Isr,
    Device,
    Notify,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Of the virtio structures.
    pub(crate) bar: u8,
    common: Range<u64>,
    device: Range<u64>,
    notify: Range<u64>,
    multiplier: u32,
    /// The size of BAR 4, where it does not hold them.
    block: u64,
}

impl Places {
    pub(crate) fn new(plan: &Plan, config_len: usize) -> Self {
        let multiplier = plan.doorbells.multiplier();
        let notify = NOTIFY + u64::from(plan.queue_count()) * u64::from(multiplier);
        let block = plan.product.layout().size(plan.queue_count());
        let (bar, block) = match plan.place {
            Place::Bar0 => (0, plan.block_bar.unwrap_or_else(|| block.max(PAGE))),
            Place::Bar4 => (4, 0),
        };
        Self {
            bar,
            common: if plan.features & bits(virtio::F::RING_RESET) != 0 {
                COMMON_WITH_RESET
            } else {
                COMMON
            },
            device: DEVICE..DEVICE + config_len as u64,
            notify: NOTIFY..notify,
            multiplier,
            block,
        }
    }

    /// The size of a BAR; 0 if there is none.
    pub(crate) fn bar_size(&self, bar: u8) -> u64 {
        let size = match bar {
            _ if bar == self.bar => self.notify.end,
            MSIX_BAR => MSIX_SIZE,
            BLOCK_BAR => self.block,
            _ => 0,
        };
        if size == 0 {
            0
        } else {
            size.next_power_of_two()
        }
    }

    /// The structure at an offset of the BAR, and the offset in it.
    pub(crate) fn structure(&self, offset: u64) -> Option<(Structure, u64)> {
        let all = [
            (Structure::Common, &self.common),
            (Structure::Isr, &ISR),
            (Structure::Device, &self.device),
            (Structure::Notify, &self.notify),
        ];
        let mut found = all.into_iter().filter(|(_, range)| range.contains(&offset));
        let (structure, range) = found.next()?;
        Some((structure, offset - range.start))
    }

    /// Where the notification register of a queue is in its structure.
    pub(crate) fn doorbell(&self, queue: u16) -> u64 {
        u64::from(queue) * u64::from(self.multiplier)
    }

    /// The same in the BAR.
    pub(crate) fn doorbell_in_bar(&self, queue: u16) -> u64 {
        self.notify.start + self.doorbell(queue)
    }

    /// The capabilities that say all this.
    pub(crate) fn capabilities(&self) -> Vec<VirtioCap> {
        let all = [
            (1, &self.common),
            (2, &self.notify),
            (3, &ISR),
            (4, &self.device),
        ];
        let capability = |(kind, range): (u8, &Range<u64>)| VirtioCap {
            kind,
            cap_len: if kind == 2 { 20 } else { 16 },
            bar: self.bar,
            offset: u32::try_from(range.start).unwrap_or(u32::MAX),
            length: u32::try_from(range.end - range.start).unwrap_or(u32::MAX),
            multiplier: self.multiplier,
        };
        all.into_iter().map(capability).collect()
    }
}
