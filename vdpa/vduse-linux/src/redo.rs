//! Gives chains of a packed ring back that an earlier program was about to (VIRTIO 1.2, 2.8).

use virtq::device::Fault;

use crate::error::QueueError;
use crate::journal::{Done, Place};
use crate::memory::QueueMemory;

/// Bits of a descriptor's flags.
const WRITE: u16 = 1 << 1;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Where the fields of a descriptor lie.
const LEN: u64 = 8;
const ID: u64 = 12;
const FLAGS: u64 = 14;

impl Place {
    /// The place so many descriptors further on, at most a lap.
    pub(crate) fn after(self, descriptors: u16, size: u16) -> Self {
        let index = u32::from(self.index) + u32::from(descriptors);
        match index.checked_sub(size.into()) {
            // Below the size, which has 16 bits.
            Some(index) => Self {
                index: index as u16,
                wrap: !self.wrap,
            },
            None => Self {
                index: index as u16,
                ..self
            },
        }
    }
}

/// Writes the used descriptors of `batch` from `place` on, unless the driver has seen them, and
/// returns the place behind them. The ring's `size` entries lie at `ring`.
pub(crate) fn redo(
    memory: &QueueMemory,
    ring: u64,
    size: u16,
    place: Place,
    batch: &[Done],
) -> Result<Place, QueueError> {
    let at = |place: Place, field: u64| {
        let offset = 16 * u64::from(place.index) + field;
        ring.checked_add(offset).ok_or(Fault::NoMapping)
    };
    let long = |done: &Done| done.descriptors > size;
    if place.index >= size || batch.iter().any(long) {
        return Err(QueueError::NoJournal);
    }
    let flags = memory.load16(at(place, FLAGS)?)?;
    // The first is shown last. The driver has since made what was used available at most, which
    // leaves this bit as it is until it is used in the next lap.
    let seen = (flags & USED != 0) == place.wrap;
    let mut next = place;
    let mut first = None;
    for done in batch {
        if !seen {
            let lap = if next.wrap { AVAIL | USED } else { 0 };
            let flags = lap | if done.written > 0 { WRITE } else { 0 };
            memory.store32(at(next, LEN)?, done.written)?;
            memory.store16(at(next, ID)?, done.id)?;
            match first {
                None => first = Some((at(next, FLAGS)?, flags)),
                Some(_) => memory.store16(at(next, FLAGS)?, flags)?,
            }
        }
        next = next.after(done.descriptors, size);
    }
    if let Some((at, flags)) = first {
        memory.store16(at, flags)?;
    }
    Ok(next)
}
