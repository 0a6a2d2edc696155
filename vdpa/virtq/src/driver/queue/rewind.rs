//! Starting a ring again without losing what is in it, for a device that begins with the first
//! entry after each reset, and for one that has forgotten where it stood.

use alloc::vec::Vec;

use super::super::chain::{Plan, Totals};
use super::super::error::RewindError;
use super::super::ring::Ring;
use super::{Chain, Order, Queue};

impl<T: Chain> Queue<T> {
    /// Makes the ring as new for a device that has been reset, without taking anything from the
    /// driver. What the old device has used can be [taken](Queue::take) as before. What it has not
    /// used the next one finds from the start on, in the order in which it was added; what has not
    /// been published is not shown.
    ///
    /// Interrupts are enabled afterwards. The device must be at rest, or the queue will break.
    ///
    /// # Errors
    /// [`RewindError`]; after [`RewindError::InOrder`] nothing has changed.
    pub fn rewind(&mut self) -> Result<(), RewindError> {
        if matches!(
            (&self.ring, &self.order),
            (Ring::Split(_), Order::Same { .. })
        ) {
            return Err(RewindError::InOrder);
        }
        if let Some(broken) = self.broken {
            return Err(broken.into());
        }
        while let Some(used) = self.take_from_ring()? {
            self.set_aside.push_back(used);
        }
        let left = self.by_position();
        let (shown, hidden) = left.split_at(usize::from(self.in_flight).min(left.len()));
        self.ring.rewind();
        self.put_back(shown);
        // Nobody is there who could be notified.
        match &mut self.ring {
            Ring::Split(ring) => ring.publish(),
            Ring::Packed(ring) => ring.publish(),
        };
        self.put_back(hidden);
        Ok(())
    }

    /// The ids of the chains in the ring, oldest first.
    fn by_position(&self) -> Vec<u16> {
        let slots = (0u16..).zip(&self.slots);
        let mut left = Vec::new();
        // A sorted vector is less code than a sort.
        for (id, slot) in slots.filter(|(_, slot)| slot.descriptors > 0) {
            let place = left.partition_point(|(position, _)| *position < slot.position);
            left.insert(place, (slot.position, id));
        }
        left.into_iter().map(|(_, id)| id).collect()
    }

    fn put_back(&mut self, ids: &[u16]) {
        for id in ids {
            let slot = &self.slots[usize::from(*id)];
            if let Some(chain) = &slot.chain {
                let table = self.table(chain);
                let totals = match table {
                    Some(table) => table.totals,
                    None => Totals::of(chain, self.space),
                };
                let plan = Plan {
                    segments: u16::try_from(totals.segments).expect("it has been added before"),
                    descriptors: slot.descriptors,
                    writable: slot.writable,
                    table: table.map(|table| table.whole),
                };
                match &mut self.ring {
                    Ring::Split(ring) => ring.add(chain, &plan, Some(*id)),
                    Ring::Packed(ring) => ring.add(chain, &plan, Some(*id)),
                };
            }
        }
    }
}
