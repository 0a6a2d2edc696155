//! The device side of a split queue, written from the specification for tests of drivers: plain,
//! slow, and able to lie.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::HeapDma;
use crate::{DmaAddr, RingAddresses, RingFeatures, Segment};

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

/// A chain that the driver has made available.
#[derive(Clone, Debug)]
pub struct Request {
    /// The id to return it by.
    pub head: u16,
    /// What the driver lets the device read, segment after segment.
    pub readable: Vec<Segment>,
    /// What the driver lets the device write.
    pub writable: Vec<Segment>,
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
        let dma = Arc::clone(dma);
        Self {
            dma,
            addresses,
            size,
            features,
            next_avail: 0,
            used: 0,
            signalled: 0,
        }
    }

    /// Takes the next chain, if the driver has published one, and asks to be notified of the one after.
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
        let mut bytes = Vec::new();
        for segment in &request.readable {
            let mut part = vec![0; segment.len as usize];
            self.dma
                .read(segment.addr, &mut part)
                .expect("a driver lends its own memory");
            bytes.extend(part);
        }
        bytes
    }

    /// Writes `bytes` at `offset` into the memory that the driver lets the device write.
    pub fn write(&self, request: &Request, offset: usize, bytes: &[u8]) {
        let mut skip = offset;
        let mut left = bytes;
        for segment in &request.writable {
            let len = segment.len as usize;
            if skip >= len {
                skip -= len;
                continue;
            }
            let (now, later) = left.split_at(left.len().min(len - skip));
            let addr = segment.addr.offset(skip);
            self.dma
                .write(addr, now)
                .expect("a driver lends its own memory");
            (skip, left) = (0, later);
        }
        assert!(
            left.is_empty(),
            "the request has no room for what the test writes"
        );
    }

    /// Returns a chain, or claims to.
    pub fn complete(&mut self, id: u32, written: u32) {
        let entry = 4 + 8 * u64::from(self.used % self.size);
        self.poke(self.addresses.device, entry, &id.to_le_bytes());
        self.poke(self.addresses.device, entry + 4, &written.to_le_bytes());
        self.set_used_index(self.used.wrapping_add(1));
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
            readable: Vec::new(),
            writable: Vec::new(),
        };
        let mut table = (self.addresses.descriptor, self.size);
        let mut index = head;
        for _ in 0..=self.size {
            assert!(index < table.1, "descriptor {index} lies outside its table");
            let at = 16 * u64::from(index);
            let addr = DmaAddr(self.u64(table.0, at));
            let len = self.u32(table.0, at + 8);
            let flags = self.u16(table.0, at + 12);
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
            let segment = Segment { addr, len };
            if flags & 2 != 0 {
                request.writable.push(segment);
            } else {
                assert!(request.writable.is_empty(), "readable segments come first");
                request.readable.push(segment);
            }
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
