//! What the loader says about the machine, copied out of its memory.

use core::mem::offset_of;

use heapless::{String, Vec};
use pvh::start_info::{MemmapTableEntry, MemmapType, START_MAGIC_VALUE, StartInfo};

/// The most memory regions that are taken over.
const MAX_REGIONS: usize = 128;
/// The most entries of the memory map that are looked at, empty ones among them.
const MAX_ENTRIES: u32 = 1024;
/// The longest command line that is taken over, in bytes.
const MAX_COMMAND_LINE: usize = 2048;

/// What the loader says about the machine.
///
/// It refers to none of the loader's memory, which the kernel may therefore use as it likes.
#[derive(Debug)]
pub struct BootInfo {
    /// The memory map, as the loader ordered it. Empty, if the loader gave none.
    pub memory: Vec<MemoryRegion, MAX_REGIONS>,
    /// The command line; one that is too long is cut, and what is not UTF-8 becomes `?`.
    pub command_line: String<MAX_COMMAND_LINE>,
    /// Where the root of the ACPI tables (RSDP) lies.
    pub rsdp: Option<u64>,
}

/// A piece of the physical address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// The first address.
    pub start: u64,
    /// The size in bytes.
    pub size: u64,
    /// What is there.
    pub kind: MemoryKind,
}

/// What a region of memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Memory that the kernel may use.
    Usable,
    /// Memory or registers that belong to somebody else.
    Reserved,
}

/// Memory at its physical addresses, as far as it can be read.
pub trait PhysicalMemory {
    /// The bytes at `address`, if all of them can be read.
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]>;
}

impl BootInfo {
    /// Reads the PVH start info at `address`, and what it refers to. What cannot be read counts as
    /// not there. `None`, if there is no start info.
    pub fn read(memory: &impl PhysicalMemory, address: u64) -> Option<Self> {
        let info = Record { memory, address };
        if info.u32(offset_of!(StartInfo, magic))? != START_MAGIC_VALUE {
            return None;
        }
        let version = info.u32(offset_of!(StartInfo, version))?;
        let command_line = info.u64(offset_of!(StartInfo, cmdline_paddr))?;
        let rsdp = info.u64(offset_of!(StartInfo, rsdp_paddr))?;
        let map = (version >= 1).then(|| {
            let address = info.u64(offset_of!(StartInfo, memmap_paddr))?;
            Some((address, info.u32(offset_of!(StartInfo, memmap_entries))?))
        });
        Some(Self {
            memory: map
                .flatten()
                .map(|(address, count)| memory_map(memory, address, count))
                .unwrap_or_default(),
            command_line: text(memory, command_line),
            rsdp: Some(rsdp).filter(|address| *address != 0),
        })
    }
}

/// The map of `count` entries at `address`.
fn memory_map(
    memory: &impl PhysicalMemory,
    address: u64,
    count: u32,
) -> Vec<MemoryRegion, MAX_REGIONS> {
    (0..u64::from(count.min(MAX_ENTRIES)))
        .map_while(|index| {
            let entry = Record {
                memory,
                address: address.checked_add(index * size_of::<MemmapTableEntry>() as u64)?,
            };
            let kind = entry.u32(offset_of!(MemmapTableEntry, ty))?;
            Some(MemoryRegion {
                start: entry.u64(offset_of!(MemmapTableEntry, addr))?,
                size: entry.u64(offset_of!(MemmapTableEntry, size))?,
                kind: if kind == u32::from(MemmapType::Ram) {
                    MemoryKind::Usable
                } else {
                    MemoryKind::Reserved
                },
            })
        })
        .filter(|region| region.size != 0)
        .take(MAX_REGIONS)
        .collect()
}

/// The text at `address`, which a zero ends.
fn text(memory: &impl PhysicalMemory, address: u64) -> String<MAX_COMMAND_LINE> {
    let mut bytes = Vec::<u8, MAX_COMMAND_LINE>::new();
    let addresses = (0..MAX_COMMAND_LINE as u64).map_while(|offset| address.checked_add(offset));
    bytes.extend(
        addresses
            .take_while(|_| address != 0)
            .map_while(|address| memory.bytes(address, 1)?.first().copied())
            .take_while(|byte| *byte != 0),
    );
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        let replacement = (!chunk.invalid().is_empty()).then_some('?');
        for character in chunk.valid().chars().chain(replacement) {
            // There is room: a character takes no more bytes here than there.
            let _ = text.push(character);
        }
    }
    text
}

/// A structure in memory.
struct Record<'m, M> {
    memory: &'m M,
    address: u64,
}

impl<M: PhysicalMemory> Record<'_, M> {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let address = self.address.checked_add(offset as u64)?;
        self.memory.bytes(address, N)?.try_into().ok()
    }

    fn u32(&self, offset: usize) -> Option<u32> {
        self.bytes(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Option<u64> {
        self.bytes(offset).map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory from address 0x1000 on.
    struct Block(std::vec::Vec<u8>);

    const START: u64 = 0x1000;

    impl PhysicalMemory for Block {
        fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
            let start = usize::try_from(address.checked_sub(START)?).ok()?;
            self.0.get(start..start.checked_add(length)?)
        }
    }

    /// A start info at the begin of the block; the map follows it, and the line the map.
    fn block(version: u32, entries: &[(u64, u64, u32)], count: u32, line: &[u8]) -> Block {
        let map = START + size_of::<StartInfo>() as u64;
        let command_line = map + (entries.len() * size_of::<MemmapTableEntry>()) as u64;
        let words = [START_MAGIC_VALUE, version, 0, 0].map(u32::to_le_bytes);
        let addresses = [0, command_line, 0xe_0000, map].map(u64::to_le_bytes);
        let mut bytes = [words.concat(), addresses.concat()].concat();
        bytes.extend([count.to_le_bytes(), [0; 4]].concat());
        for (start, size, kind) in entries {
            bytes.extend([start.to_le_bytes(), size.to_le_bytes()].concat());
            bytes.extend([kind.to_le_bytes(), [0; 4]].concat());
        }
        bytes.extend(line);
        Block(bytes)
    }

    fn region(start: u64, size: u64, kind: MemoryKind) -> MemoryRegion {
        MemoryRegion { start, size, kind }
    }

    #[test]
    fn the_map_and_the_command_line_are_copied() {
        let entries = [(0, 0x9fc00, 1), (0, 0, 1), (0xf_0000, 0x1_0000, 2)];
        let info = BootInfo::read(&block(1, &entries, 3, b"ip=dhcp\0x"), START).unwrap();
        assert_eq!(
            info.memory,
            [
                region(0, 0x9fc00, MemoryKind::Usable),
                region(0xf_0000, 0x1_0000, MemoryKind::Reserved),
            ]
        );
        assert_eq!(info.command_line, "ip=dhcp");
        assert_eq!(info.rsdp, Some(0xe_0000));
    }

    #[test]
    fn the_first_version_has_no_map() {
        let info = BootInfo::read(&block(0, &[(0, 1, 1)], 1, b"\0"), START).unwrap();
        assert!(info.memory.is_empty() && info.command_line.is_empty());
    }

    #[test]
    fn what_cannot_be_read_ends_the_map_and_the_line() {
        // No zero before the end of memory, and two entries more than there are: the line is no
        // third one.
        let info = BootInfo::read(&block(1, &[(0, 1, 1)], 3, b"a\xffb"), START).unwrap();
        assert_eq!(info.memory.len(), 1);
        assert_eq!(info.command_line, "a?b");
        for length in 0..size_of::<StartInfo>() {
            let mut block = block(1, &[], 0, b"");
            block.0.truncate(length);
            let info = BootInfo::read(&block, START);
            assert_eq!(
                info.is_some(),
                length >= offset_of!(StartInfo, memmap_paddr)
            );
        }
        assert!(BootInfo::read(&block(1, &[], 0, b""), u64::MAX - 1).is_none());
        assert!(BootInfo::read(&block(1, &[], 0, b""), START + 4).is_none());
    }

    #[test]
    fn long_maps_and_lines_are_cut() {
        let entries = vec![(0, 1, 1); MAX_REGIONS + 1];
        let line = vec![b'a'; MAX_COMMAND_LINE + 1];
        let count = u32::try_from(entries.len()).unwrap();
        let info = BootInfo::read(&block(1, &entries, count, &line), START).unwrap();
        assert_eq!(info.memory.len(), MAX_REGIONS);
        assert_eq!(info.command_line.len(), MAX_COMMAND_LINE);
        let empty = vec![(0, 0, 1); MAX_ENTRIES as usize];
        let info = BootInfo::read(&block(1, &empty, u32::MAX, b""), START).unwrap();
        assert!(info.memory.is_empty());
    }
}
