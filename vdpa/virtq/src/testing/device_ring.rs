//! The device side of a split queue, written from the specification for tests of drivers: plain,
//! slow, and able to lie.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{HeapDma, Request};
use crate::{DmaAddr, RingAddresses, RingFeatures, RingState, Segment};

/// A device that serves one split queue in [`HeapDma`].
///
/// It panics where a driver breaks the specification, as a test should.
#[derive(Debug)]
pub struct DeviceRing {
    dma: Arc<HeapDma>,
    addresses: RingAddresses,
    size: u16,
    features: RingFeatures,
    next_avail: u16,
    used: u16,
    signalled: u16,
}

impl DeviceRing {
    /// A device side that has seen nothing yet.
    #[must_use]
    pub fn new(
        dma: &Arc<HeapDma>,
        addresses: RingAddresses,
        size: u16,
        features: RingFeatures,
    ) -> Self {
        Self::at(dma, addresses, size, features, 0)
    }

    /// A device side that goes on at an index.
    #[must_use]
    pub fn at(
        dma: &Arc<HeapDma>,
        addresses: RingAddresses,
        size: u16,
        features: RingFeatures,
        index: u16,
    ) -> Self {
        let dma = Arc::clone(dma);
        let (next_avail, used, signalled) = (index, index, index);
        Self {
            dma,
            addresses,
            size,
            features,
            next_avail,
            used,
            signalled,
        }
    }

    /// Where a device goes on that puts back what it has taken and not returned, if it has returned
    /// chains in the order in which it took them.
    #[must_use]
    pub fn state(&self) -> RingState {
        RingState::Split { index: self.used }
    }

    /// Takes the next chain, if the driver has published one, and asks to be notified of the one
    /// after.
    pub fn pop(&mut self) -> Option<Request> {
        let published = self.u16(self.addresses.driver, 2);
        if published == self.next_avail {
            return None;
        }
        let head = self.u16(
            self.addresses.driver,
            4 + 2 * u64::from(self.next_avail % self.size),
        );
        self.next_avail = self.next_avail.wrapping_add(1);
        self.set_avail_event(self.next_avail);
        Some(self.walk(head))
    }

    /// Copies out everything the driver lets the device read.
    #[must_use]
    pub fn read(&self, request: &Request) -> Vec<u8> {
        request.read(&self.dma)
    }

    /// Writes `bytes` at `offset` into the memory that the driver lets the device write.
    pub fn write(&self, request: &Request, offset: usize, bytes: &[u8]) {
        request.write(&self.dma, offset, bytes);
    }

    /// Returns a chain.
    pub fn finish(&mut self, request: &Request, written: u32) {
        self.complete(request.head.into(), written);
    }

    /// Returns a chain, or claims to.
    pub fn complete(&mut self, id: u32, written: u32) {
        self.complete_batch(id, written, 1);
    }

    /// Returns so many chains by the last of them, as a device that uses them in order may.
    pub fn complete_batch(&mut self, id: u32, written: u32, chains: u16) {
        let entry = 4 + 8 * u64::from(self.used % self.size);
        self.poke(self.addresses.device, entry, &id.to_le_bytes());
        self.poke(self.addresses.device, entry + 4, &written.to_le_bytes());
        self.set_used_index(self.used.wrapping_add(chains));
    }

    /// Claims to have used everything up to `index`.
    pub fn set_used_index(&mut self, index: u16) {
        self.used = index;
        self.poke(self.addresses.device, 2, &index.to_le_bytes());
    }

    /// Whether the driver wants an interrupt for what was completed since the last call.
    pub fn wants_interrupt(&mut self) -> bool {
        let (old, new) = (self.signalled, self.used);
        self.signalled = new;
        if !self.features.event_idx {
            return old != new && self.u16(self.addresses.driver, 0) & 1 == 0;
        }
        let used_event = self.u16(self.addresses.driver, 4 + 2 * u64::from(self.size));
        // One step at a time, so that this does not repeat the driver's arithmetic.
        let steps = new.wrapping_sub(old);
        (0..steps).any(|step| old.wrapping_add(step) == used_event)
    }

    /// Asks to be notified when the driver publishes the chain of this available index.
    pub fn set_avail_event(&self, index: u16) {
        if self.features.event_idx {
            let offset = 4 + 8 * u64::from(self.size);
            self.poke(self.addresses.device, offset, &index.to_le_bytes());
        }
    }

    /// Asks for no notifications, where the event index is not negotiated.
    pub fn set_no_notify(&self, flag: u16) {
        self.poke(self.addresses.device, 0, &flag.to_le_bytes());
    }

    fn walk(&self, head: u16) -> Request {
        let mut request = Request {
            head,
            ..Request::default()
        };
        let mut table = (self.addresses.descriptor, self.size);
        let mut index = head;
        for _ in 0..=self.size {
            assert!(index < table.1, "descriptor {index} lies outside its table");
            let at = 16 * u64::from(index);
            let addr = DmaAddr(self.u64(table.0, at));
            let len = self.u32(table.0, at + 8);
            let flags = self.u16(table.0, at + 12);
            request.descriptors += u16::from(table.0 == self.addresses.descriptor);
            if flags & 4 != 0 {
                assert!(
                    self.features.indirect,
                    "indirect descriptors were not negotiated"
                );
                assert_eq!(flags, 4, "an indirect descriptor has no other flag here");
                table = (
                    addr,
                    u16::try_from(len / 16).expect("a table is no longer than the queue"),
                );
                index = 0;
                continue;
            }
            request.push(Segment::described(addr, len), flags);
            if flags & 1 == 0 {
                return request;
            }
            index = self.u16(table.0, at + 14);
        }
        panic!("the chain of descriptor {head} has no end");
    }

    fn u16(&self, base: DmaAddr, offset: u64) -> u16 {
        u16::from_le_bytes(self.peek(base, offset))
    }

    fn u32(&self, base: DmaAddr, offset: u64) -> u32 {
        u32::from_le_bytes(self.peek(base, offset))
    }

    fn u64(&self, base: DmaAddr, offset: u64) -> u64 {
        u64::from_le_bytes(self.peek(base, offset))
    }

    fn peek<const N: usize>(&self, base: DmaAddr, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.dma
            .read(DmaAddr(base.0 + offset), &mut bytes)
            .expect("the ring lies in DMA memory");
        bytes
    }

    fn poke(&self, base: DmaAddr, offset: u64, bytes: &[u8]) {
        self.dma
            .write(DmaAddr(base.0 + offset), bytes)
            .expect("the ring lies in DMA memory");
    }
}
