//! Configuration space of one function: what is there, which bits can be written, and how often it
//! lies.

use super::input::Noise;

/// What is modelled of the 4096 bytes; the rest is zero.
pub const SIZE: usize = 0x200;
/// Where the extended capability SR-IOV is, if there is one.
pub const SR_IOV: usize = 0x120;
/// Where a port has its slot's registers.
pub const SLOT_STATUS: usize = 0x40 + 0x1a;

pub struct Function {
    image: Vec<u8>,
    writable: Vec<u8>,
    noise: Noise,
    /// How many of 256 reads are lies.
    pub lies: u8,
}

impl Function {
    pub fn empty(seed: u32) -> Self {
        Self {
            image: vec![0; SIZE],
            writable: vec![0; SIZE],
            noise: Noise::new(seed),
            lies: 0,
        }
    }

    /// A virtio function with three MSI-X vectors.
    pub fn virtio(device: u16, subvendor: u16) -> Self {
        let class = if device & 0xf == 2 {
            0x01_0000
        } else {
            0x02_0000
        };
        let mut function = Self::header(0x1af4, device, class);
        function.set(0x2c, &subvendor.to_le_bytes());
        function.bar(1, 0, 0xffff_f000);
        function.bar(4, 0xc, 0xffff_c000);
        function.bar(5, 0, 0xffff_ffff);
        function.set(0x34, &[0x40]);
        function.structure(0x40, 0x50, 1, 0x0000, 0x1000);
        function.structure(0x50, 0x64, 2, 0x3000, 0x1000);
        function.set(0x60, &4_u32.to_le_bytes());
        function.structure(0x64, 0x74, 3, 0x1000, 0x1000);
        function.structure(0x74, 0x84, 4, 0x2000, 0x1000);
        function.set(0x84, &[0x11, 0, 2, 0, 1, 0, 0, 0, 1, 8, 0, 0]);
        function.allow(0x87, &[0xc0]);
        function
    }

    /// A port with a slot and these buses.
    pub fn port(buses: [u8; 3]) -> Self {
        let mut function = Self::header(0x1b36, 0x000c, 0x06_0400);
        function.set(0x0e, &[1]);
        function.set(0x18, &buses);
        function.allow(0x18, &[0xff; 3]);
        function.allow(0x1c, &[0xf0, 0xf0]);
        function.allow(0x20, &[0xf0, 0xff, 0xf0, 0xff, 0xf0, 0xff, 0xf0, 0xff]);
        function.set(0x24, &[1, 0, 1, 0]);
        function.allow(0x28, &[0xff; 8]);
        function.set(0x34, &[0x40]);
        // A root port with a slot that has power, hot-plug and no command interrupts, and passes
        // ARI on.
        function.set(0x40, &[0x10, 0, 0x42, 0x01]);
        function.set(0x40 + 0x0c, &0x0010_0000_u32.to_le_bytes());
        function.set(0x40 + 0x12, &0x2000_u16.to_le_bytes());
        function.set(0x40 + 0x14, &0x0004_0042_u32.to_le_bytes());
        function.allow(0x40 + 0x18, &[0xff; 2]);
        function.set(SLOT_STATUS, &[0x40]);
        function.set(0x40 + 0x24, &[0x20]);
        function.allow(0x40 + 0x28, &[0x20]);
        function
    }

    /// A card with up to eight virtual functions.
    pub fn physical() -> Self {
        let mut function = Self::header(0x1af4, 0x7777, 0x02_0000);
        function.set(0x100, &(0x0001_000e | (0x120_u32 << 20)).to_le_bytes());
        function.set(SR_IOV, &0x0001_0010_u32.to_le_bytes());
        function.allow(SR_IOV + 0x08, &[0x19]);
        function.set(SR_IOV + 0x0e, &[8]);
        function.allow(SR_IOV + 0x10, &[0xff; 2]);
        function.set(SR_IOV + 0x14, &[1, 0, 1, 0]);
        function.set(SR_IOV + 0x1a, &0x1041_u16.to_le_bytes());
        function.set(SR_IOV + 0x1c, &[1, 0, 0, 0, 1]);
        function.allow(SR_IOV + 0x28, &[0, 0xf0, 0xff, 0xff]);
        function.set(SR_IOV + 0x34, &[0xc]);
        function.allow(
            SR_IOV + 0x34,
            &[0, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        );
        function
    }

    /// A virtual function of such a card.
    pub fn virtual_one() -> Self {
        let mut function = Self::virtio(0x1041, 0x1af4);
        function.set(0, &[0xff; 4]);
        function.set(0x10, &[0; 24]);
        function.writable[0x10..0x28].fill(0);
        function
    }

    fn header(vendor: u16, device: u16, class: u32) -> Self {
        let mut function = Self::empty(u32::from(device));
        function.set(0, &vendor.to_le_bytes());
        function.set(2, &device.to_le_bytes());
        function.allow(4, &[0x07, 0x04]);
        function.set(6, &[0x10]);
        function.set(8, &(class << 8).to_le_bytes());
        function
    }

    fn bar(&mut self, index: usize, found: u8, mask: u32) {
        self.set(0x10 + 4 * index, &[found]);
        self.allow(0x10 + 4 * index, &mask.to_le_bytes());
    }

    fn structure(&mut self, at: usize, next: u8, kind: u8, offset: u32, length: u32) {
        self.set(at, &[9, next, if kind == 2 { 20 } else { 16 }, kind, 4]);
        self.set(at + 8, &offset.to_le_bytes());
        self.set(at + 12, &length.to_le_bytes());
    }

    pub fn set(&mut self, at: usize, bytes: &[u8]) {
        for (at, byte) in (at..SIZE).zip(bytes) {
            self.image[at] = *byte;
        }
    }

    pub fn allow(&mut self, at: usize, mask: &[u8]) {
        for (at, byte) in (at..SIZE).zip(mask) {
            self.writable[at] = *byte;
        }
    }

    /// What is there in truth.
    pub fn peek16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.image[at], self.image[at + 1]])
    }

    pub fn read(&mut self, offset: u16) -> u32 {
        if self.noise.lies(self.lies) {
            return self.noise.next();
        }
        let at = usize::from(offset);
        match self.image.get(at..at + 4) {
            Some(bytes) => bytes
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u32::from(*byte)),
            None => 0,
        }
    }

    pub fn write(&mut self, offset: u16, bytes: &[u8]) {
        for (at, byte) in (usize::from(offset)..SIZE).zip(bytes) {
            let mask = self.writable[at];
            self.image[at] = self.image[at] & !mask | byte & mask;
        }
    }
}
