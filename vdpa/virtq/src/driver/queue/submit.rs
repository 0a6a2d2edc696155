//! A chain that is shown to the device as soon as it is added, as requests are. For one that keeps
//! a table, on a packed ring, that is one descriptor; every other is [added](Queue::add) and
//! [published](Queue::publish).

use core::sync::atomic::Ordering;

use super::super::ring::Ring;
use super::super::types::{Notify, Token};
use super::{AddError, Chain, Order, Queue};
use crate::format::F_INDIRECT;

/// A chain that the device has been shown.
pub(in crate::driver) struct Submitted<T> {
    pub(in crate::driver) token: Token,
    /// The chain that the token has named before, if it has come back and nobody has
    /// [fetched](Queue::fetch) it.
    pub(in crate::driver) before: Option<T>,
    /// The queue's [place](Queue::place), if the device wants to be notified.
    pub(in crate::driver) kick: Option<u16>,
}

impl<T: Chain> Queue<T> {
    /// Puts a chain into the ring and shows it to the device.
    #[inline(always)]
    pub(in crate::driver) fn submit(&mut self, chain: T) -> Result<Submitted<T>, AddError<T>> {
        if T::KEEPS_TABLE
            && let (Ring::Packed(ring), Some(table)) = (&mut self.ring, chain.table())
            && table.is_sound
            && table.whole.space == self.space
            && Some(table.format) == self.table_format
            && table.totals.segments <= u32::from(self.segments_max)
            && self.free > 0
            && self.added == self.published
            && self.broken.is_none()
        {
            // A sound table has no more bytes than that.
            let (whole, writable) = (table.whole, table.totals.writable as u32);
            let id = ring.free_id;
            if let Order::Same(line) = &mut self.order {
                let last = line.ids.len() - 1;
                line.ids[self.added as usize & last] = id;
            }
            let slot = &mut self.slots[usize::from(id)];
            let before = slot.chain.replace(chain);
            (slot.position, slot.descriptors, slot.writable) = (self.added, 1, writable);
            self.added += 1;
            self.published = self.added;
            self.free -= 1;
            self.in_flight += 1;
            let kick = ring.submit(whole, F_INDIRECT);
            let counters = &*self.statistics;
            let outcome = match kick {
                Some(_) => &counters.kicks,
                None => &counters.suppressed,
            };
            for counter in [&counters.added, outcome] {
                let count = counter.load(Ordering::Relaxed);
                counter.store(count.wrapping_add(1), Ordering::Relaxed);
            }
            let token = Token(id);
            return Ok(Submitted {
                token,
                before,
                kick,
            });
        }
        let (token, before) = self.add_any(chain)?;
        let kick = match self.publish() {
            Notify::Needed => Some(self.place()),
            Notify::NotNeeded => None,
        };
        Ok(Submitted {
            token,
            before,
            kick,
        })
    }
}
