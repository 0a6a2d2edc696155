//! What the loader says about the machine, copied out of its memory.

use heapless::{String, Vec};
use pvh::start_info::MemmapType;
use pvh::start_info::reader::StartInfoReader;

/// The most memory regions that are taken over.
const MAX_REGIONS: usize = 64;
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

impl BootInfo {
    /// Reads the structure at `start_info`. `None`, if it is not a PVH start info.
    ///
    /// # Safety
    /// `start_info` is what the loader passed, memory is mapped at its physical addresses, and
    /// nothing has overwritten what the loader put there.
    pub(crate) unsafe fn read(start_info: u32) -> Option<Self> {
        // SAFETY: passed on to the caller.
        let reader = unsafe { StartInfoReader::from_paddr_identity(start_info) }?;
        let mut memory = Vec::new();
        for entry in reader.memmap() {
            let kind = match entry.ty() {
                MemmapType::Ram => MemoryKind::Usable,
                _ => MemoryKind::Reserved,
            };
            let region = MemoryRegion {
                start: entry.addr,
                size: entry.size,
                kind,
            };
            if region.size != 0 && memory.push(region).is_err() {
                break;
            }
        }
        let mut command_line = String::new();
        for chunk in reader
            .cmdline()
            .map_or(&[][..], |line| line.to_bytes())
            .utf8_chunks()
        {
            let replacement = if chunk.invalid().is_empty() {
                None
            } else {
                Some('?')
            };
            for character in chunk.valid().chars().chain(replacement) {
                if command_line.push(character).is_err() {
                    break;
                }
            }
        }
        let rsdp = Some(reader.raw().rsdp_paddr).filter(|address| *address != 0);
        Some(Self {
            memory,
            command_line,
            rsdp,
        })
    }
}
