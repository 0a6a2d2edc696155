//! What can be told from the bytes of a definition block without interpreting them.
//!
//! An interpreter of AML is larger than the rest of this kernel's start, and machines with virtio
//! devices in memory write down constants. What is looked for here are names and the constants
//! behind them, which stand in the tables as they are written. A block that does more than that is
//! as good as one that says nothing.
//!
//! Source: ACPI 6.5, 6.4 (resource descriptors) and 20.2 (encoding of AML).

use super::madt::{Polarity, Trigger};
use super::tables::{u16_at, u32_at, u64_at};

/// A virtio device whose registers are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VirtioDevice {
    /// The first register.
    pub(crate) base: u64,
    /// How many bytes there are.
    pub(crate) size: u64,
    /// The number of its interrupt among all of the machine.
    pub(crate) interrupt: u32,
    /// The moment of the interrupt.
    pub(crate) trigger: Trigger,
    /// The voltage.
    pub(crate) polarity: Polarity,
}

/// A device: ExtOpPrefix and DeviceOp, then the length of all that follows.
const DEVICE: &[u8] = &[0x5b, 0x82];
/// The id of virtio devices in memory, as a named string.
const VIRTIO: &[u8] = b"\x08_HID\x0dLNRO0005\0";
/// A buffer of resources with its name.
const RESOURCES: &[u8] = b"\x08_CRS\x11";
/// How far before a name in it a device is looked for.
const DEVICE_REACH: usize = 256;

/// Whether the block tells of a host bridge with another bus number than 0 (`_BBN`, 6.5.5).
pub(super) fn names_base_bus(block: &[u8]) -> bool {
    places(block, b"_BBN").any(|at| {
        let number = block.get(at + 4..).and_then(constant);
        number.is_none_or(|(number, _)| number != 0)
    })
}

/// Where a host bridge says that its configuration space is (`_CBA`, 6.5.6; PCI Firmware 3.3,
/// 4.1.3): a constant, or a method that returns one.
pub(super) fn config_base(block: &[u8]) -> Option<u64> {
    places(block, b"_CBA").find_map(|at| {
        let after = block.get(at + 4..)?;
        // Arguments, then ReturnOp.
        let method = after.get(2..).filter(|_| after[1] == 0xa4);
        let value = match block.get(at.checked_sub(1)?)? {
            0x08 => after,
            _ => method?,
        };
        constant(value)
            .map(|(base, _)| base)
            .filter(|base| *base != 0)
    })
}

/// The virtio devices that the block describes.
pub(super) fn virtio_devices(block: &[u8]) -> impl Iterator<Item = VirtioDevice> {
    places(block, VIRTIO).filter_map(|at| {
        let device = enclosing_device(block, at)?;
        let at = places(device, RESOURCES).next()? + RESOURCES.len();
        let (buffer, _) = package(device.get(at..)?)?;
        let (_, resources) = constant(buffer)?;
        virtio_device(resources)
    })
}

/// Where the bytes of `name` are.
fn places(block: &[u8], name: &[u8]) -> impl Iterator<Item = usize> {
    let windows = block.windows(name.len()).enumerate();
    windows
        .filter(move |(_, window)| *window == name)
        .map(|(at, _)| at)
}

/// The innermost device in which the byte `at` is.
fn enclosing_device(block: &[u8], at: usize) -> Option<&[u8]> {
    (at.saturating_sub(DEVICE_REACH)..at)
        .rev()
        .find_map(|start| {
            let rest = block[start..].strip_prefix(DEVICE)?;
            let (device, length) = package(rest)?;
            (start + DEVICE.len() + length > at).then_some(device)
        })
}

/// What a package of bytes holds, and how many it has with its length (20.2.4).
fn package(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let lead = *bytes.first()?;
    let more = usize::from(lead >> 6);
    let mut length = usize::from(lead & if more == 0 { 0x3f } else { 0x0f });
    for (index, byte) in bytes.get(1..=more)?.iter().enumerate() {
        length |= usize::from(*byte) << (4 + 8 * index);
    }
    Some((bytes.get(1 + more..length)?, length))
}

/// A constant, and what follows (20.2.3).
fn constant(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (value, size) = match *bytes.first()? {
        0x00 => (0, 0),
        0x01 => (1, 0),
        0x0a => (u64::from(*bytes.get(1)?), 1),
        0x0b => (u64::from(u16_at(bytes, 1)?), 2),
        0x0c => (u64::from(u32_at(bytes, 1)?), 4),
        0x0e => (u64_at(bytes, 1)?, 8),
        _ => return None,
    };
    Some((value, bytes.get(1 + size..)?))
}

/// The first range of memory and the first interrupt in a list of resources.
fn virtio_device(mut resources: &[u8]) -> Option<VirtioDevice> {
    let (mut memory, mut line) = (None, None);
    while memory.is_none() || line.is_none() {
        let tag = *resources.first()?;
        let (start, length) = match tag {
            0x80.. => (3, usize::from(u16_at(resources, 1)?)),
            _ => (1, usize::from(tag & 7)),
        };
        let body = resources.get(start..start + length)?;
        resources = &resources[start + length..];
        match tag {
            // The end.
            0x78..0x80 => return None,
            _ => {
                memory = memory.or_else(|| memory_of(tag, body));
                line = line.or_else(|| line_of(tag, body));
            }
        }
    }
    let ((base, size), (interrupt, trigger, polarity)) = memory.zip(line)?;
    (size != 0).then_some(VirtioDevice {
        base,
        size,
        interrupt,
        trigger,
        polarity,
    })
}

/// Base and size, if the descriptor is one of memory (6.4.3.4 and 6.4.3.5).
fn memory_of(tag: u8, body: &[u8]) -> Option<(u64, u64)> {
    const MEMORY: u8 = 0;
    match tag {
        // Memory32Fixed.
        0x86 => Some((u32_at(body, 1)?.into(), u32_at(body, 5)?.into())),
        // DWordMemory.
        0x87 if body.first() == Some(&MEMORY) => {
            Some((u32_at(body, 7)?.into(), u32_at(body, 19)?.into()))
        }
        // QWordMemory.
        0x8a if body.first() == Some(&MEMORY) => Some((u64_at(body, 11)?, u64_at(body, 35)?)),
        _ => None,
    }
}

/// Number, moment and voltage, if the descriptor is one of an interrupt (6.4.2.1 and 6.4.3.6).
fn line_of(tag: u8, body: &[u8]) -> Option<(u32, Trigger, Polarity)> {
    let kind = |edge, low| {
        let trigger = if edge { Trigger::Edge } else { Trigger::Level };
        let polarity = if low { Polarity::Low } else { Polarity::High };
        (trigger, polarity)
    };
    match tag {
        // IRQNoFlags: an edge, active high.
        0x22 | 0x23 => {
            let lines = u16_at(body, 0).filter(|lines| *lines != 0)?;
            let flags = body.get(2).copied().unwrap_or(1);
            let (trigger, polarity) = kind(flags & 1 != 0, flags & 1 << 3 != 0);
            Some((lines.trailing_zeros(), trigger, polarity))
        }
        // Interrupt.
        0x89 => {
            let flags = *body.first()?;
            let number = body
                .get(1)
                .filter(|count| **count != 0)
                .and_then(|_| u32_at(body, 2))?;
            let (trigger, polarity) = kind(flags & 1 << 1 != 0, flags & 1 << 2 != 0);
            Some((number, trigger, polarity))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// A term with its length before it, as compilers write it: one byte if that does, two if not.
    fn packaged(prefix: &[u8], body: &[u8]) -> Vec<u8> {
        let short = body.len() + 1;
        let length = if short < 0x40 {
            std::vec![short as u8]
        } else {
            let long = body.len() + 2;
            std::vec![0x40 | (long & 0xf) as u8, (long >> 4) as u8]
        };
        [prefix, &length, body].concat()
    }

    fn device(name: &[u8; 4], terms: &[&[u8]]) -> Vec<u8> {
        packaged(DEVICE, &[&name[..], &terms.concat()].concat())
    }

    fn resources(list: &[&[u8]]) -> Vec<u8> {
        let list = [&list.concat()[..], &[0x79, 0]].concat();
        let buffer = [&[0x0a, list.len() as u8][..], &list].concat();
        packaged(RESOURCES, &buffer)
    }

    /// 512 bytes at 0xfeb00000.
    const MEMORY: &[u8] = &[0x86, 9, 0, 1, 0, 0, 0xb0, 0xfe, 0, 2, 0, 0];
    /// Interrupt 24: level, high, exclusive.
    const INTERRUPT: &[u8] = &[0x89, 6, 0, 0b0001, 1, 24, 0, 0, 0];
    const OTHER: &[u8] = b"\x08_HID\x0dACPI0013\0";

    fn found(block: &[u8]) -> Vec<VirtioDevice> {
        virtio_devices(block).collect()
    }

    const FOUND: VirtioDevice = VirtioDevice {
        base: 0xfeb0_0000,
        size: 512,
        interrupt: 24,
        trigger: Trigger::Level,
        polarity: Polarity::High,
    };

    #[test]
    fn devices_of_the_id_are_found_with_their_own_resources() {
        let uid = b"\x08_UID\x0a\x07";
        let block = [
            device(b"GED_", &[OTHER, &resources(&[MEMORY, INTERRUPT])]),
            device(b"VR00", &[VIRTIO, uid, &resources(&[MEMORY, INTERRUPT])]),
            device(b"VR01", &[&resources(&[INTERRUPT, MEMORY]), VIRTIO]),
            device(b"VR02", &[VIRTIO]),
            device(b"GED2", &[OTHER, &resources(&[MEMORY, INTERRUPT])]),
        ];
        assert_eq!(found(&block.concat()), [FOUND, FOUND]);
    }

    #[test]
    fn a_device_inside_another_one_has_its_own_resources() {
        let inner = device(b"VR00", &[VIRTIO, &resources(&[MEMORY, INTERRUPT])]);
        let other = [0x86, 9, 0, 1, 0, 0, 0, 0x12, 0, 2, 0, 0];
        let outer = device(b"BUS0", &[OTHER, &resources(&[&other, INTERRUPT]), &inner]);
        assert_eq!(found(&outer), [FOUND]);
    }

    #[test]
    fn every_kind_of_memory_and_interrupt_is_read() {
        let mut dword = std::vec![0x87, 23, 0, 0, 0, 0];
        dword.extend(
            [0_u32, 0xd000_0000, 0xd000_0fff, 0, 0x1000]
                .map(u32::to_le_bytes)
                .concat(),
        );
        let mut qword = std::vec![0x8a, 43, 0, 0, 0, 0];
        qword.extend(
            [0_u64, 1 << 40, (1 << 40) + 0xfff, 0, 0x1000]
                .map(u64::to_le_bytes)
                .concat(),
        );
        let edge: &[u8] = &[0x89, 6, 0, 0b0111, 1, 5, 0, 0, 0];
        let isa: &[u8] = &[0x22, 0x20, 0];
        let isa_level: &[u8] = &[0x23, 0x20, 0, 0b1000];
        for (memory, line, base, trigger, polarity) in [
            (&dword, edge, 0xd000_0000, Trigger::Edge, Polarity::Low),
            (&qword, isa, 1 << 40, Trigger::Edge, Polarity::High),
            (&qword, isa_level, 1 << 40, Trigger::Level, Polarity::Low),
        ] {
            let block = device(b"VR00", &[VIRTIO, &resources(&[memory, line])]);
            let wanted = VirtioDevice {
                base,
                size: 0x1000,
                interrupt: 5,
                trigger,
                polarity,
            };
            assert_eq!(found(&block), [wanted]);
        }
    }

    #[test]
    fn damaged_blocks_say_nothing_and_do_no_harm() {
        let block = device(b"VR00", &[VIRTIO, &resources(&[MEMORY, INTERRUPT])]);
        for end in 0..block.len() {
            assert_eq!(found(&block[..end]), []);
        }
        // Every byte with every value, and a few at a time.
        for at in 0..block.len() {
            for value in 0..=u8::MAX {
                let mut block = block.clone();
                block[at] = value;
                found(&block);
                config_base(&block);
            }
        }
        let mut chance = 1_u32;
        for _ in 0..20_000 {
            let mut block = block.clone();
            for _ in 0..4 {
                chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (chance >> 8) as usize % block.len();
                block[at] = (chance >> 24) as u8;
            }
            found(&block);
        }
    }

    #[test]
    fn configuration_space_is_where_a_method_or_a_name_says() {
        let method = b"\x14\x0b_CBA\x00\xa4\x0c\x00\x00\x00\xe0";
        assert_eq!(config_base(method), Some(0xe000_0000));
        let name = b"\x08_CBA\x0e\x00\x00\x00\x00\x40\x00\x00\x00";
        assert_eq!(config_base(name), Some(0x40_0000_0000));
        for block in [
            &b"_CBA"[..],
            b"\x14\x0b_CBA\x00",
            b"\x14\x0b_CBA\x00\xa4",
            b"\x14\x0b_CBA\x00\xa4\x0c\x00\x00\x00",
            b"\x14\x0b_CBA\x00\xa4\x00",
            b"\x14\x0b_CBA\x00\x70\x0c\x00\x00\x00\xe0",
            b"\x08_CBA\x0d",
        ] {
            assert_eq!(config_base(block), None, "{block:x?}");
        }
    }
}
