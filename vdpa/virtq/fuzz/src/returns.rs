//! What a hostile device writes into its rings: mostly what looks well, so that some of it is
//! believed.

use std::sync::Arc;

use virtq::testing::HeapDma;
use virtq::{DmaAddr, RingAddresses, RingFeatures, RingState};

use super::input::Input;

/// What the device knows: its place in the ring.
pub struct Device {
    dma: Arc<HeapDma>,
    addresses: RingAddresses,
    size: u16,
    state: RingState,
}

impl Device {
    pub fn new(dma: &Arc<HeapDma>, addresses: RingAddresses, size: u16, state: RingState) -> Self {
        Self {
            dma: Arc::clone(dma),
            addresses,
            size,
            state,
        }
    }

    pub fn restart(&mut self, features: RingFeatures) {
        self.state = RingState::start(features);
    }

    /// Returns this id, whatever it is, and goes on by `advance`.
    pub fn put(&mut self, id: u32, written: u32, advance: u16) {
        let RingAddresses {
            descriptor, device, ..
        } = self.addresses;
        match &mut self.state {
            RingState::Split { index } => {
                let entry = device.0 + 4 + 8 * u64::from(*index % self.size);
                *index = index.wrapping_add(advance);
                let index = index.to_le_bytes();
                self.write(entry, &id.to_le_bytes());
                self.write(entry + 4, &written.to_le_bytes());
                self.write(device.0 + 2, &index);
            }
            RingState::Packed { index, wrap } => {
                let at = descriptor.0 + 16 * u64::from(*index);
                let flags: u16 = if *wrap { 1 << 7 | 1 << 15 } else { 0 };
                let next = *index + advance % (self.size + 1);
                *wrap ^= next >= self.size;
                *index = next % self.size;
                self.write(at + 8, &written.to_le_bytes());
                self.write(at + 12, &id.to_le_bytes()[..2]);
                self.write(at + 14, &flags.to_le_bytes());
            }
        }
    }

    /// Writes anywhere into the ring, or to where a descriptor points: a buffer or a table.
    pub fn poke(&self, input: &mut Input) {
        let base = match input.byte() % 4 {
            0 => self.addresses.descriptor.0,
            1 => self.addresses.driver.0,
            2 => self.addresses.device.0,
            _ => {
                let index = u64::from(input.u16() % self.size);
                let at = DmaAddr(self.addresses.descriptor.0 + 16 * index);
                let mut addr = [0; 8];
                self.dma
                    .read(at, &mut addr)
                    .expect("the descriptor lies in the ring");
                u64::from_le_bytes(addr)
            }
        };
        let offset = u64::from(input.u16());
        self.write(base.wrapping_add(offset), &input.bytes());
    }

    /// Writes what says whether the device wants notifications.
    pub fn poke_tail(&self, input: &mut Input) {
        let (device, value) = (self.addresses.device.0, input.u16().to_le_bytes());
        match self.state {
            RingState::Split { .. } if input.flag() => self.write(device, &value),
            RingState::Split { .. } => self.write(device + 4 + 8 * u64::from(self.size), &value),
            RingState::Packed { .. } => {
                self.write(device, &value);
                self.write(device + 2, &[input.byte()]);
            }
        }
    }

    /// Writes as a device can: to memory that was given out, and nowhere else.
    fn write(&self, addr: u64, bytes: &[u8]) {
        // Elsewhere there is nothing to corrupt.
        let _fault = self.dma.write(DmaAddr(addr), bytes);
    }
}
