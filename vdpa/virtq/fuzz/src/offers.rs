//! What a hostile driver writes into its rings: mostly chains that look well, so that some are.

use virtq::device::DeviceConfig;
use virtq::{DmaAddr, RingAddresses};

use super::guest::{Guest, HIGH, LEN, LOW};
use super::input::Input;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The parts of a ring where they do not touch.
pub const TIDY: RingAddresses = RingAddresses {
    descriptor: DmaAddr(LOW),
    driver: DmaAddr(LOW + 0x400),
    device: DmaAddr(LOW + 0x600),
};
/// Where a tidy ring leaves room for buffers.
const BUFFERS: u64 = LOW + 0x800;

/// A buffer as a descriptor names it.
struct Buffer {
    addr: u64,
    len: u32,
}

/// The driver's place in its ring.
pub struct Offers {
    config: DeviceConfig,
    /// In a split ring.
    index: u16,
    /// In a packed ring.
    place: u16,
    wrap: bool,
}

impl Offers {
    pub fn new(config: DeviceConfig, index: u16, wrap: bool) -> Self {
        Self {
            config,
            index,
            place: index % config.size,
            wrap,
        }
    }

    /// Offers a chain of up to five descriptors.
    pub fn chain(&mut self, guest: &Guest, input: &mut Input) {
        let (count, id) = (1 + input.below(5), u16::from(input.byte()));
        let readable = input.below(6);
        for nth in 0..count {
            let next = if nth + 1 < count { NEXT } else { 0 };
            let write = if nth < readable { 0 } else { WRITE };
            let buffer = Buffer {
                addr: address(input),
                len: length(input),
            };
            self.describe(guest, id, nth, &buffer, next | write);
        }
        self.show(guest, id);
    }

    /// Offers a table of up to eight entries.
    pub fn table(&mut self, guest: &Guest, input: &mut Input) {
        let (addr, id) = (address(input), u16::from(input.byte()));
        let (count, readable) = (1 + input.below(8), input.below(9));
        for nth in 0..count {
            let next = if nth + 1 < count { NEXT } else { 0 };
            let write = if nth < readable { 0 } else { WRITE };
            let buffer = Buffer {
                addr: address(input),
                len: length(input),
            };
            let at = addr.wrapping_add(16 * nth as u64);
            let follower = u16::try_from(nth + 1).expect("small");
            let (third, fourth) = self.last_fields(next | write, follower);
            write_descriptor(guest, at, &buffer, third, fourth);
        }
        let len = match input.byte() {
            0xf0.. => input.u32(),
            _ => 16 * u32::try_from(count).expect("small"),
        };
        self.describe(guest, id, 0, &Buffer { addr, len }, INDIRECT);
        self.show(guest, id);
    }

    /// Goes somewhere else, or says what the device has to tell.
    pub fn jump(&mut self, guest: &Guest, input: &mut Input) {
        let driver = self.config.addresses.driver.0;
        match input.byte() % 4 {
            0 if self.config.features.packed => {
                self.place = input.u16() % self.config.size;
                self.wrap = input.flag();
            }
            0 => self.advance(guest, u16::from(input.byte())),
            1 => guest.write(driver, &input.bytes()),
            2 => {
                let used_event = driver.wrapping_add(4 + 2 * u64::from(self.config.size));
                guest.write(used_event, &input.u16().to_le_bytes());
            }
            _ => {
                let near = self.index.wrapping_sub(u16::from(input.byte() % 8));
                let used_event = driver.wrapping_add(4 + 2 * u64::from(self.config.size));
                guest.write(used_event, &near.to_le_bytes());
            }
        }
    }

    /// Writes the descriptor that is `nth` of a chain.
    fn describe(&mut self, guest: &Guest, id: u16, nth: usize, buffer: &Buffer, flags: u16) {
        let size = self.config.size;
        let table = self.config.addresses.descriptor.0;
        let slot = |index: u16| table.wrapping_add(16 * u64::from(index % size));
        if self.config.features.packed {
            let lap = if self.wrap { 1 << 7 } else { 1 << 15 };
            write_descriptor(guest, slot(self.place), buffer, id, flags | lap);
            self.place += 1;
            if self.place == size {
                self.place = 0;
                self.wrap = !self.wrap;
            }
        } else {
            let index = id + u16::try_from(nth).expect("small");
            write_descriptor(guest, slot(index), buffer, flags, (index + 1) % size);
        }
    }

    /// Puts a split chain into the available ring. A packed one is there already.
    fn show(&mut self, guest: &Guest, id: u16) {
        if !self.config.features.packed {
            let size = self.config.size;
            let entry = 4 + 2 * u64::from(self.index % size);
            let at = self.config.addresses.driver.0.wrapping_add(entry);
            guest.write(at, &(id % size).to_le_bytes());
            self.advance(guest, 1);
        }
    }

    fn advance(&mut self, guest: &Guest, by: u16) {
        self.index = self.index.wrapping_add(by);
        let at = self.config.addresses.driver.0.wrapping_add(2);
        guest.write(at, &self.index.to_le_bytes());
    }

    /// The last two fields of a table's entry.
    fn last_fields(&self, flags: u16, next: u16) -> (u16, u16) {
        if self.config.features.packed {
            (next, flags)
        } else {
            (flags, next)
        }
    }
}

/// The parts of a ring, anywhere.
pub fn untidy_ring(input: &mut Input) -> RingAddresses {
    let mut part = || {
        let addr = match input.byte() % 8 {
            0..=2 => (LOW + u64::from(input.u16() % 0x1000)) & !15,
            3..=5 => (HIGH + u64::from(input.u16() % 0x1000)) & !15,
            6 => HIGH + u64::from(input.u16() % 0x1000),
            _ => input.u64(),
        };
        DmaAddr(addr)
    };
    RingAddresses {
        descriptor: part(),
        driver: part(),
        device: part(),
    }
}

/// An address of a buffer, a table, or a byte of a ring; or of nothing.
pub fn address(input: &mut Input) -> u64 {
    match input.byte() % 8 {
        0..=2 => BUFFERS + 16 * u64::from(input.byte()),
        3 | 4 => LOW + u64::from(input.u16()) % (BUFFERS - LOW),
        5 | 6 => HIGH + u64::from(input.u16()) % LEN,
        _ => input.u64(),
    }
}

fn length(input: &mut Input) -> u32 {
    match input.byte() {
        0xf0.. => input.u32(),
        len => u32::from(len),
    }
}

fn write_descriptor(guest: &Guest, at: u64, buffer: &Buffer, third: u16, fourth: u16) {
    guest.write(at, &buffer.addr.to_le_bytes());
    guest.write(at.wrapping_add(8), &buffer.len.to_le_bytes());
    guest.write(at.wrapping_add(12), &third.to_le_bytes());
    guest.write(at.wrapping_add(14), &fourth.to_le_bytes());
}
