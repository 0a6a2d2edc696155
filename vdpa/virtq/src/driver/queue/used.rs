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
    #[inline]
    pub fn take(&mut self) -> Result<Option<Used<T>>, Broken> {
        if !self.set_aside.is_empty() && self.broken.is_none() {
            return Ok(self.take_set_aside());
        }
        let Some((token, written)) = self.take_token()? else {
            return Ok(None);
        };
        Ok(self.fetch(token, written))
    }

    /// As [`Queue::take`], but leaves the chain with the queue until [`Queue::fetch`], or until
    /// [`Queue::next_token`] is added. What a rewind has set aside is not returned.
    #[inline]
    pub(in crate::driver) fn take_token(&mut self) -> Result<Option<(Token, u32)>, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        match self.next_used() {
            Ok(Some((id, written))) => {
                let slot = &mut self.slots[usize::from(id)];
                let descriptors = mem::take(&mut slot.descriptors);
                match &mut self.ring {
                    Ring::Split(ring) => ring.release(id),
                    Ring::Packed(ring) => ring.release(id, descriptors),
                }
                self.free += descriptors;
                self.in_flight -= 1;
                self.statistics.count_used();
                Ok(Some((Token(id), written)))
            }
            Ok(None) => Ok(None),
            Err(broken) => {
                self.broken = Some(broken);
                Err(broken)
            }
        }
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
        let in_batch = match &self.order {
            Order::Any => false,
            Order::Same(line) => line.batch_end > self.oldest(),
        };
        in_batch || !self.set_aside.is_empty()
    }

    /// In order, the position of the chain that the device returns next.
    #[inline]
    fn oldest(&self) -> u64 {
        self.published - u64::from(self.in_flight)
    }

    /// The id of the next used chain and what was written to it, after checking everything that the
    /// device says of it.
    #[inline]
    fn next_used(&mut self) -> Result<Option<(u16, u32)>, Broken> {
        if let Order::Same(line) = &self.order
            && line.batch_end > self.oldest()
        {
            return self.next_in_line(self.oldest()).map(Some);
        }
        let claim = match &self.ring {
            Ring::Split(ring) => ring.peek(self.in_flight)?,
            Ring::Packed(ring) => ring.peek(self.in_flight)?,
        };
        let Some(claim) = claim else {
            return Ok(None);
        };
        let position = self.check(&claim)?;
        let Order::Same(line) = &mut self.order else {
            return Ok(Some((claim.id, claim.written)));
        };
        let oldest = self.published - u64::from(self.in_flight);
        let skipped = position - oldest;
        if skipped >= u64::from(claim.chains) {
            return Err(Broken::BadBatch);
        }
        line.batch_end = position + 1;
        line.written = claim.written;
        if skipped == 0 {
            return Ok(Some((claim.id, claim.written)));
        }
        self.next_in_line(oldest).map(Some)
    }

    /// Compares what the device says with the books, and tells when the chain was added.
    #[inline]
    fn check(&self, claim: &Claim) -> Result<u64, Broken> {
        let slot = self.slots.get(usize::from(claim.id)).ok_or(Broken::BadId)?;
        if slot.descriptors == 0 || slot.position >= self.published {
            return Err(Broken::NotInFlight);
        }
        if claim.written > slot.writable {
            return Err(Broken::BadLength);
        }
        Ok(slot.position)
    }

    /// The oldest chain of a batch. Those before the last are used completely (VIRTIO 1.2, 2.7.9).
    fn next_in_line(&self, oldest: u64) -> Result<(u16, u32), Broken> {
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
}
