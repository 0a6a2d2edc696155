//! What a hostile client writes into the memory that its device reaches.

use virtq::SharedMemory;

use super::input::Input;

/// Where a client maps its memory, a neighbour as well as the hostile one.
pub const BASE: u64 = 1 << 40;
pub const PAGE: u64 = 4096;
/// One page of rings for each queue that could be there, and a few for buffers.
pub const LEN: u64 = 8 * PAGE;
pub const RING_PAGES: u64 = 4;

/// In its page: descriptors, what the driver writes, what the device writes.
pub const PARTS: [u64; 3] = [0, 0x400, 0x800];

/// Flags of a descriptor (VIRTIO 1.2, 2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A descriptor, split or packed, that leads somewhere or nowhere.
pub fn write_descriptor(memory: &SharedMemory, input: &mut Input) {
    let at = ring(input) + PARTS[0] + 16 * input.below(16) as u64;
    let mut descriptor = Vec::new();
    descriptor.extend(address(input).to_le_bytes());
    descriptor.extend(len(input).to_le_bytes());
    match input.below(3) {
        // Split: flags and the next one.
        0 => {
            descriptor.extend((input.below(8) as u16).to_le_bytes());
            descriptor.extend((input.below(17) as u16).to_le_bytes());
        }
        // Packed: id and flags, available in the first lap.
        1 => {
            descriptor.extend((input.below(16) as u16).to_le_bytes());
            descriptor.extend((input.below(8) as u16 | 1 << 7).to_le_bytes());
        }
        _ => descriptor.extend(input.u32().to_le_bytes()),
    }
    write(memory, at, &descriptor);
}

/// A chain as a driver would write it for a split ring, from the input's lengths and directions,
/// and makes it available.
pub fn write_chain(memory: &SharedMemory, input: &mut Input) {
    let ring = ring(input);
    let count = 1 + input.below(3);
    let readable = input.below(count + 1);
    let head = input.below(13);
    for part in 0..count {
        let last = part + 1 == count;
        let flags = if last { 0 } else { NEXT } | if part < readable { 0 } else { WRITE };
        let mut descriptor = Vec::new();
        descriptor.extend((BASE + (RING_PAGES + part as u64) * PAGE).to_le_bytes());
        descriptor.extend([1, 16, 64, 512, 2048, len(input)][input.below(6)].to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend((head as u16 + part as u16 + 1).to_le_bytes());
        write(
            memory,
            ring + PARTS[0] + 16 * (head + part) as u64,
            &descriptor,
        );
    }
    write_header(memory, RING_PAGES * PAGE, input);
    make_available(memory, ring + PARTS[1], head as u16, 1);
}

/// A disk's request or a network card's header and command, somewhere in a buffer.
pub fn write_request(memory: &SharedMemory, input: &mut Input) {
    let at = (RING_PAGES + input.below(4) as u64) * PAGE + 16 * input.below(4) as u64;
    write_header(memory, at, input);
}

/// Makes descriptors of a split ring available, as many as the input says.
pub fn write_available(memory: &SharedMemory, input: &mut Input) {
    let at = ring(input) + PARTS[1];
    let head = input.below(18) as u16;
    let count = match input.below(8) {
        0 => input.u16(),
        more => more as u16 / 4 + 1,
    };
    make_available(memory, at, head, count);
}

fn write_header(memory: &SharedMemory, at: u64, input: &mut Input) {
    let mut header = [0; 18];
    header[0] = input.byte();
    match input.below(4) {
        0 => header[1] = input.byte(),
        // To a network card's own address, behind the 12 bytes of its header.
        1 => header[12..].copy_from_slice(&[2, 0, 0, 0, 0, 1]),
        _ => (),
    }
    header[8] = input.byte();
    write(memory, at, &header);
}

/// The available ring at `at` gets an entry, and its index grows by `count`.
fn make_available(memory: &SharedMemory, at: u64, head: u16, count: u16) {
    let mut index = [0; 2];
    memory
        .read(at + 2, &mut index)
        .expect("it lies in the memory");
    let index = u16::from_le_bytes(index);
    let entry = at + 4 + 2 * u64::from(index % 16);
    write(memory, entry, &head.to_le_bytes());
    write(memory, at + 2, &index.wrapping_add(count).to_le_bytes());
}

/// Whatever, wherever.
pub fn write_bytes(memory: &SharedMemory, input: &mut Input) {
    let at = u64::from(input.u16()) % (LEN - 8);
    write(memory, at, &input.bytes());
}

fn ring(input: &mut Input) -> u64 {
    PAGE * (input.below(RING_PAGES as usize) as u64)
}

/// An address that is mapped, if the memory is where it should be; or not at all.
pub fn address(input: &mut Input) -> u64 {
    match input.below(8) {
        0 => input.u64(),
        1 => BASE + LEN - input.below(32) as u64,
        2 => BASE + 16 * u64::from(input.u16() % (LEN / 16) as u16),
        _ => BASE + (RING_PAGES + input.below(4) as u64) * PAGE + 16 * input.below(4) as u64,
    }
}

fn len(input: &mut Input) -> u32 {
    match input.below(8) {
        0 => input.u32(),
        1 => 0,
        2 => 1,
        3 => 512,
        _ => 16,
    }
}

fn write(memory: &SharedMemory, at: u64, bytes: &[u8]) {
    memory.write(at, bytes).expect("it lies in the memory");
}
