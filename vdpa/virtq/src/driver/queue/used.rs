//! Chains come back: what the device says of them is checked against the queue's books.
//!
//! Source: VIRTIO 1.2, 2.7.14 and 2.8.22 (receiving used buffers).

use core::mem;

use super::super::error::Broken;
use super::super::ring::Ring;
use super::super::types::{Claim, Token, Used};
use super::{Chain, Order, Queue};

impl<T: Chain> Queue<T> {
    /// Whether the device has used a chain that has not been taken back. Says nothing about its
    /// honesty.
    #[must_use]
    pub fn has_used(&self) -> bool {
        self.has_found() || self.ring.has_used()
    }

    /// Takes back the next chain that the device has used.
    ///
    /// # Errors
    /// [`Broken`], at the first lie of the device and ever after. The chains in flight stay with
    /// the queue until [`Queue::reclaim`].
    #[inline(always)]
    pub fn take(&mut self) -> Result<Option<Used<T>>, Broken> {
        if !self.set_aside.is_empty() && self.broken.is_none() {
            return Ok(self.take_set_aside());
        }
        let Some((token, written)) = self.take_token()? else {
            return Ok(None);
        };
        // It is there: what was taken has been in flight.
        let Some(chain) = self.slots[token.index()].chain.take() else {
            return Ok(None);
        };
        Ok(Some(Used {
            token,
            chain,
            written,
        }))
    }

    /// The same of what the ring has, for those who are in no hurry.
    #[cold]
    pub(super) fn take_from_ring(&mut self) -> Result<Option<Used<T>>, Broken> {
        let Some((token, written)) = self.take_token()? else {
            return Ok(None);
        };
        Ok(self.fetch(token, written))
    }

    /// As [`Queue::take`], but leaves the chain with the queue until [`Queue::fetch`], or until
    /// its token is given to another one. What a rewind has set aside is not returned.
    #[inline(always)]
    pub(in crate::driver) fn take_token(&mut self) -> Result<Option<(Token, u32)>, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if !self.is_in_batch() {
            let claim = match &self.ring {
                Ring::Split(ring) => match ring.peek() {
                    Some(claim) => claim,
                    None => return Ok(None),
                },
                Ring::Packed(ring) => match ring.peek(self.in_flight) {
                    Some(claim) => claim,
                    None => return Ok(None),
                },
            };
            match self.check_claim(&claim) {
                // It is one of a slot.
                Ok(Found::Chain) => return Ok(Some(self.release(claim.id as u16, claim.written))),
                Ok(Found::Batch) => {}
                Err(broken) => return Err(self.break_off(broken)),
            }
        }
        match self.oldest_of_batch() {
            Ok((id, written)) => Ok(Some(self.release(id, written))),
            Err(broken) => Err(self.break_off(broken)),
        }
    }

    #[cold]
    fn break_off(&mut self, broken: Broken) -> Broken {
        self.broken = Some(broken);
        broken
    }

    /// The chain of a token that was taken.
    #[inline]
    pub(in crate::driver) fn fetch(&mut self, token: Token, written: u32) -> Option<Used<T>> {
        let chain = self.slots[token.index()].chain.take()?;
        Some(Used {
            token,
            chain,
            written,
        })
    }

    /// The next chain that a rewind has set aside.
    #[cold]
    pub(in crate::driver) fn take_set_aside(&mut self) -> Option<Used<T>> {
        self.set_aside.pop_front()
    }

    /// Whether a used chain is known that has left the ring already.
    #[inline]
    pub(super) fn has_found(&self) -> bool {
        self.is_in_batch() || !self.set_aside.is_empty()
    }

    /// In order, whether the device has used the next chain in a batch that has been looked at.
    #[inline]
    fn is_in_batch(&self) -> bool {
        match &self.order {
            Order::Any => false,
            Order::Same(line) => line.batch_end > self.oldest(),
        }
    }

    /// In order, the position of the chain that the device returns next.
    #[inline]
    fn oldest(&self) -> u64 {
        self.published - u64::from(self.in_flight)
    }

    /// Checks everything that the device says of the next used chain.
    #[inline(always)]
    fn check_claim(&mut self, claim: &Claim) -> Result<Found, Broken> {
        let Claim {
            id,
            written,
            chains,
        } = *claim;
        // More than the driver has published cannot have been used.
        if chains == 0 || chains > self.in_flight {
            return Err(Broken::UsedIndex);
        }
        let oldest = self.oldest();
        // An id that is too large finds no slot.
        let slot = self.slots.get(id as usize).ok_or(Broken::BadId)?;
        if slot.descriptors == 0 || slot.position >= self.published {
            return Err(Broken::NotInFlight);
        }
        if written > slot.writable {
            return Err(Broken::BadLength);
        }
        if let Order::Same(line) = &mut self.order {
            let skipped = slot.position - oldest;
            if skipped >= u64::from(chains) {
                return Err(Broken::BadBatch);
            }
            (line.batch_end, line.written) = (slot.position + 1, written);
            if skipped > 0 {
                return Ok(Found::Batch);
            }
        }
        Ok(Found::Chain)
    }

    /// The oldest chain of a batch. Those before the last are used completely (VIRTIO 1.2, 2.7.9).
    #[inline(always)]
    fn oldest_of_batch(&self) -> Result<(u16, u32), Broken> {
        let oldest = self.oldest();
        let Order::Same(line) = &self.order else {
            unreachable!("the callers know the order");
        };
        let id = line.id(oldest);
        let slot = &self.slots[usize::from(id)];
        // It may have been reclaimed.
        if slot.descriptors == 0 {
            return Err(Broken::NotInFlight);
        }
        let is_last = oldest + 1 == line.batch_end;
        Ok((id, if is_last { line.written } else { slot.writable }))
    }

    /// The device has no part in a chain any more.
    #[inline(always)]
    fn release(&mut self, id: u16, written: u32) -> (Token, u32) {
        let descriptors = mem::take(&mut self.slots[usize::from(id)].descriptors);
        match &mut self.ring {
            Ring::Split(ring) => ring.release(id),
            Ring::Packed(ring) => ring.release(id, descriptors),
        }
        self.free += descriptors;
        self.in_flight -= 1;
        self.statistics.count_used();
        (Token(id), written)
    }
}

/// What the device says, checked.
enum Found {
    /// It has used this chain.
    Chain,
    /// It has used the oldest chains, up to a later one.
    Batch,
}
