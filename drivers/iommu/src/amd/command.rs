//! The command buffer: what the IOMMU is told to forget (AMD 48882, 2.4).

use core::time::Duration;

use vdpa::Platform;
use vdpa::iotlb::IovaRange;
use virtq::{DmaAddr, DmaError, SharedMemory};

use crate::hardware_table::{HardwareTable, TableSource};

use super::registers::{Register, Registers, Status, before};

/// The size of a command in bytes.
const SIZE: u32 = 16;
const ENTRIES_LOG2: u32 = 8;
const BYTES: u32 = SIZE << ENTRIES_LOG2;
/// So many commands precede a wait. One place stays empty, one is the wait's.
const BATCH: usize = (1 << ENTRIES_LOG2) - 2;

/// How long the IOMMU may take for a full buffer.
const DEADLINE: Duration = Duration::from_secs(1);

const OPCODE_SHIFT: u32 = 60;
const STORE: u64 = 1 << 0;
const DOMAIN_SHIFT: u32 = 32;
/// S: bits of the address say how large the range is.
const SIZED: u64 = 1 << 0;
/// PDE: entries that lead to tables are forgotten, too.
const DIRECTORIES: u64 = 1 << 1;
/// Every address.
const EVERYTHING: u64 = 0x7fff_ffff_ffff_f000;
const PAGE_BITS: u32 = 12;

/// What the IOMMU forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `INVALIDATE_DEVTAB_ENTRY`.
    Device(u16),
    /// `INVALIDATE_IOMMU_PAGES` of a domain that lie in a range.
    Pages(u16, IovaRange),
    /// `INVALIDATE_INTERRUPT_TABLE` of a device.
    Interrupts(u16),
    /// `INVALIDATE_IOMMU_ALL`.
    All,
}

impl Command {
    fn encode(self) -> [u64; 2] {
        match self {
            Self::Device(device) => [2 << OPCODE_SHIFT | u64::from(device), 0],
            Self::Pages(domain, range) => {
                let first = 3 << OPCODE_SHIFT | u64::from(domain) << DOMAIN_SHIFT;
                [first, block(range) | DIRECTORIES]
            }
            Self::Interrupts(device) => [5 << OPCODE_SHIFT | u64::from(device), 0],
            Self::All => [8 << OPCODE_SHIFT, 0],
        }
    }
}

/// The smallest block that the command can name and that holds the range (AMD 48882, table 14): of
/// several pages when the size bit is set. The block is as large as the lowest bit of the address
/// that is zero says, doubled.
fn block(range: IovaRange) -> u64 {
    let differ = range.first() ^ range.last();
    let Some(highest) = (differ >> PAGE_BITS).checked_ilog2() else {
        return range.first() & !0xfff;
    };
    let highest = highest + PAGE_BITS;
    if highest >= 62 {
        return EVERYTHING | SIZED;
    }
    let below = (1 << highest) - 1;
    let above = !(below | 1 << highest);
    range.first() & above | below & !0xfff | SIZED
}

/// The IOMMU has not done what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoAnswer;

/// Commands on their way to the IOMMU.
#[derive(Debug)]
pub(super) struct CommandBuffer {
    buffer: HardwareTable,
    /// Where the IOMMU writes the number of the last wait.
    done: SharedMemory,
    waits: u64,
    /// In bytes.
    tail: u32,
}

impl CommandBuffer {
    pub(super) fn new(source: &TableSource, platform: &dyn Platform) -> Result<Self, DmaError> {
        Ok(Self {
            buffer: source.allocate(BYTES as usize)?,
            done: SharedMemory::new(&platform.dma(), 8)?,
            waits: 0,
            tail: 0,
        })
    }

    /// Command Buffer Base Address (AMD 48882, 3.4.1): with the logarithm of the length.
    pub(super) fn base(&self) -> u64 {
        self.buffer.addr().0 | u64::from(ENTRIES_LOG2) << 56
    }

    /// Waits until the IOMMU has forgotten all of it.
    pub(super) fn run(
        &mut self,
        registers: &Registers,
        platform: &dyn Platform,
        commands: impl IntoIterator<Item = Command>,
    ) -> Result<(), NoAnswer> {
        let mut pending = 0;
        for command in commands {
            self.push(command.encode());
            pending += 1;
            if pending == BATCH {
                self.wait(registers, platform)?;
                pending = 0;
            }
        }
        if pending > 0 {
            self.wait(registers, platform)?;
        }
        Ok(())
    }

    fn push(&mut self, command: [u64; 2]) {
        let word = self.tail as usize / 8;
        self.buffer.fill(word, 2, |at| command[at & 1]);
        self.tail = (self.tail + SIZE) % BYTES;
    }

    /// `COMPLETION_WAIT`: what precedes it has been done when its number is in memory.
    fn wait(&mut self, registers: &Registers, platform: &dyn Platform) -> Result<(), NoAnswer> {
        self.waits += 1;
        let DmaAddr(addr) = self.done.addr();
        self.push([1 << OPCODE_SHIFT | addr | STORE, self.waits]);
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        // SAFETY: the IOMMU reads the buffer, and writes the eight bytes that are its own.
        unsafe { registers.write_lower(Register::CommandTail, self.tail) };
        let number = self.waits;
        let done = || {
            let mut bytes = [0; 8];
            let read = self.done.read(0, &mut bytes);
            read.is_ok() && u64::from_le_bytes(bytes) == number
        };
        // An illegal command stops the IOMMU: it need not be waited for.
        let settled = || done() || !registers.status().contains(Status::CMD_BUF_RUN);
        if (done() || before(platform, DEADLINE, settled)) && done() {
            Ok(())
        } else {
            Err(NoAnswer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_named_by_the_smallest_block_that_holds_it() {
        let block = |first, last| block(IovaRange::from_bounds(first, last).unwrap());
        assert_eq!(block(0x5000, 0x5fff), 0x5000);
        assert_eq!(block(0x4000, 0x5fff), 0x4000 | SIZED);
        assert_eq!(block(0x4000, 0x7fff), 0x5000 | SIZED);
        assert_eq!(block(0x5000, 0x6fff), 0x5000 | SIZED);
        assert_eq!(block(0x7000, 0x8fff), 0x7000 | SIZED);
        assert_eq!(block(0x20_0000, 0x3f_ffff), 0x2f_f000 | SIZED);
        assert_eq!(block(0, u64::MAX), EVERYTHING | SIZED);
        assert_eq!(block(0x1000, (1 << 62) + 1), EVERYTHING | SIZED);
    }
}
