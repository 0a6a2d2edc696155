//! The device side of a packed queue, written from the specification for tests of drivers.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{HeapDma, Request};
use crate::{DmaAddr, RingAddresses, RingFeatures, RingState, Segment};

/// A device that serves one packed queue in [`HeapDma`].
///
/// It panics where a driver breaks the specification, as a test should.
#[derive(Debug)]
pub struct PackedDevice {
    dma: Arc<HeapDma>,
    addresses: RingAddresses,
    size: u16,
    features: RingFeatures,
    avail: (u16, bool),
    used: (u16, bool),
    signalled: (u16, bool),
}

impl PackedDevice {
    /// A device side that has seen nothing yet.
    #[must_use]
    pub fn new(
        dma: &Arc<HeapDma>,
        addresses: RingAddresses,
        size: u16,
        features: RingFeatures,
    ) -> Self {
        Self::at(dma, addresses, size, features, (0, true))
    }

    /// A device side that goes on at a place and its wrap counter.
    #[must_use]
    pub fn at(
        dma: &Arc<HeapDma>,
        addresses: RingAddresses,
        size: u16,
        features: RingFeatures,
        place: (u16, bool),
    ) -> Self {
        let dma = Arc::clone(dma);
        Self {
            dma,
            addresses,
            size,
            features,
            avail: place,
            used: place,
            signalled: place,
        }
    }

    /// Where a device goes on that puts back what it has taken and not returned, if it has returned
    /// chains in the order in which it took them.
    #[must_use]
    pub fn state(&self) -> RingState {
        let (index, wrap) = self.used;
        RingState::Packed { index, wrap }
    }

    /// Takes the next chain, if the driver has published one, and asks to be notified of the one
    /// after.
    pub fn pop(&mut self) -> Option<Request> {
        if !self.is_available() {
            return None;
        }
        let mut request = Request::default();
        loop {
            assert!(self.is_available(), "a chain becomes available as a whole");
            let at = 16 * u64::from(self.avail.0);
            let flags = self.u16(at + 14);
            request.head = self.u16(at + 12);
            request.descriptors += 1;
            self.avail = self.after(self.avail, 1);
            if flags & 4 != 0 {
                assert!(
                    self.features.indirect,
                    "indirect descriptors were not negotiated"
                );
                assert_eq!(flags & 1, 0, "an indirect descriptor stands alone");
                self.walk_table(DmaAddr(self.u64(at)), self.u32(at + 8), &mut request);
            } else {
                request.push(
                    Segment::described(DmaAddr(self.u64(at)), self.u32(at + 8)),
                    flags,
                );
            }
            if flags & 1 == 0 {
                break;
            }
        }
        self.set_event(self.avail);
        Some(request)
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
        self.complete(request.head, written, request.descriptors);
    }

    /// Returns a chain of this id, or claims to, and skips so many descriptors.
    pub fn complete(&mut self, id: u16, written: u32, descriptors: u16) {
        let at = 16 * u64::from(self.used.0);
        let flags: u16 = if self.used.1 { 1 << 7 | 1 << 15 } else { 0 };
        self.poke(at + 8, &written.to_le_bytes());
        self.poke(at + 12, &id.to_le_bytes());
        self.poke(at + 14, &flags.to_le_bytes());
        self.used = self.after(self.used, descriptors);
    }

    /// Whether the driver wants an interrupt for what was completed since the last call.
    pub fn wants_interrupt(&mut self) -> bool {
        let mut place = core::mem::replace(&mut self.signalled, self.used);
        let mut event = [0; 4];
        self.dma
            .read(self.addresses.driver, &mut event)
            .expect("the driver's event suppression");
        let off_wrap = u16::from_le_bytes([event[0], event[1]]);
        match u16::from_le_bytes([event[2], event[3]]) {
            0 => place != self.used,
            2 => {
                assert!(
                    self.features.event_idx,
                    "the event index was not negotiated"
                );
                let wanted = (off_wrap & 0x7fff, off_wrap >> 15 != 0);
                // One step at a time, so that this does not repeat the driver's arithmetic.
                while place != self.used {
                    if place == wanted {
                        return true;
                    }
                    place = self.after(place, 1);
                }
                false
            }
            _ => false,
        }
    }

    /// Asks to be notified when the descriptor of this place becomes available.
    pub fn set_event(&self, (index, wrap): (u16, bool)) {
        if self.features.event_idx {
            let place = index | u16::from(wrap) << 15;
            self.store_event(place, 2);
        }
    }

    /// Asks for no notifications.
    pub fn disable_notifications(&self) {
        self.store_event(0, 1);
    }

    fn store_event(&self, place: u16, flags: u16) {
        let event = u32::from(place) | u32::from(flags) << 16;
        self.dma
            .write(self.addresses.device, &event.to_le_bytes())
            .expect("event suppression");
    }

    fn is_available(&self) -> bool {
        let flags = self.u16(16 * u64::from(self.avail.0) + 14);
        let (avail, used) = (flags >> 7 & 1 != 0, flags >> 15 & 1 != 0);
        avail == self.avail.1 && used != self.avail.1
    }

    fn walk_table(&self, table: DmaAddr, len: u32, request: &mut Request) {
        assert!(
            len > 0 && len.is_multiple_of(16),
            "a table is made of descriptors"
        );
        for at in (0..u64::from(len)).step_by(16) {
            let mut bytes = [0; 16];
            self.dma
                .read(DmaAddr(table.0 + at), &mut bytes)
                .expect("a table in DMA memory");
            let [a, b, c, d, e, f, g, h, i, j, k, l, _, _, m, n] = bytes;
            let addr = DmaAddr(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
            let flags = u16::from_le_bytes([m, n]);
            assert_eq!(flags & !2, 0, "a table's descriptors have no other flag");
            request.push(
                Segment::described(addr, u32::from_le_bytes([i, j, k, l])),
                flags,
            );
        }
    }

    fn after(&self, (index, wrap): (u16, bool), count: u16) -> (u16, bool) {
        let next = index + count;
        if next < self.size {
            (next, wrap)
        } else {
            (next - self.size, !wrap)
        }
    }

    fn u16(&self, offset: u64) -> u16 {
        u16::from_le_bytes(self.peek(offset))
    }

    fn u32(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.peek(offset))
    }

    fn u64(&self, offset: u64) -> u64 {
        u64::from_le_bytes(self.peek(offset))
    }

    fn peek<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let addr = DmaAddr(self.addresses.descriptor.0 + offset);
        self.dma
            .read(addr, &mut bytes)
            .expect("the ring lies in DMA memory");
        bytes
    }

    fn poke(&self, offset: u64, bytes: &[u8]) {
        let addr = DmaAddr(self.addresses.descriptor.0 + offset);
        self.dma
            .write(addr, bytes)
            .expect("the ring lies in DMA memory");
    }
}
