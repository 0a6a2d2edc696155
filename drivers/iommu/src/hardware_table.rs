//! Tables of 64-bit words that an IOMMU reads, in memory of the platform.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use vdpa::Platform;
use virtq::{DmaAddr, DmaAllocator, DmaBuffer, DmaError};

const WORD: usize = 8;
#[cfg(all(target_arch = "x86_64", not(miri)))]
const CACHE_LINE: usize = 64;

/// Whether an IOMMU that reads a table looks into the processor's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coherence {
    /// It does.
    Snooped,
    /// It reads the memory: what is written is written back at once.
    NotSnooped,
}

/// Where tables come from.
#[derive(Clone)]
pub(crate) struct TableSource {
    dma: Arc<dyn DmaAllocator>,
    coherence: Coherence,
}

impl TableSource {
    pub(crate) fn new(platform: &dyn Platform, coherence: Coherence) -> Self {
        Self {
            dma: platform.dma(),
            coherence,
        }
    }

    /// A table of zeros, so many bytes long: at least a page, and aligned to one.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<HardwareTable, DmaError> {
        let table = HardwareTable {
            memory: DmaBuffer::new(&self.dma, bytes)?,
            coherence: self.coherence,
        };
        table.write_back(0, table.len());
        Ok(table)
    }
}

impl fmt::Debug for TableSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableSource")
            .field("coherence", &self.coherence)
            .finish_non_exhaustive()
    }
}

/// A table of words, each of which the IOMMU sees as it was before or after a change.
///
/// The memory is given back when the value is dropped: not before the IOMMU has forgotten it.
#[derive(Debug)]
pub(crate) struct HardwareTable {
    memory: DmaBuffer,
    coherence: Coherence,
}

impl HardwareTable {
    /// Where the IOMMU finds it.
    pub(crate) fn addr(&self) -> DmaAddr {
        self.memory.addr()
    }

    /// The number of words.
    pub(crate) fn len(&self) -> usize {
        self.memory.len() / WORD
    }

    /// A word. One that the table does not have is zero.
    pub(crate) fn get(&self, index: usize) -> u64 {
        let word = self.memory.chunks_exact(WORD).nth(index);
        let word = word.and_then(|word| word.try_into().ok());
        word.map_or(0, u64::from_le_bytes)
    }

    /// Writes a word. What has been written before is seen before.
    pub(crate) fn set(&mut self, index: usize, word: u64) {
        self.fill(index, 1, |_| word);
    }

    /// Writes `count` words from the one at `first` on, each by its place among them.
    pub(crate) fn fill(&mut self, first: usize, count: usize, word: impl Fn(usize) -> u64) {
        let words = self.memory.chunks_exact_mut(WORD).skip(first).take(count);
        for (at, place) in words.enumerate() {
            let pointer = place.as_mut_ptr().cast();
            // SAFETY: the eight bytes are exclusive, and aligned: tables are aligned to pages.
            let place = unsafe { AtomicU64::from_ptr(pointer) };
            place.store(word(at).to_le(), Ordering::Release);
        }
        self.write_back(first, count);
    }

    /// Lets an IOMMU that does not snoop see what was written (Intel SDM vol. 2, `CLFLUSH`).
    fn write_back(&self, first: usize, count: usize) {
        if self.coherence == Coherence::Snooped {
            return;
        }
        let end = (first + count).min(self.len()) * WORD;
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        for at in (first * WORD / CACHE_LINE * CACHE_LINE..end).step_by(CACHE_LINE) {
            let line = self.memory[at..].as_ptr();
            // SAFETY: the line holds bytes of the table, and writing it back changes none of them.
            unsafe {
                core::arch::asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags));
            }
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = end;
    }
}
