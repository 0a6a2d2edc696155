//! A guest's memory as `vm-memory` maps it, from which a driver allocates: a device side by others
//! reaches what our driver side has allocated, and the other way round.

use std::alloc::Layout;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use virtq::{DmaAddr, DmaAllocator, DmaBlock, DmaError};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Where the memory starts for the device: never where the host has mapped it.
const BASE: GuestAddress = GuestAddress(0x40_0000_0000);

pub struct GuestRam {
    memory: Arc<GuestMemoryMmap>,
    len: usize,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    used: usize,
    /// Offsets of blocks that came back, by their layout.
    free: HashMap<Layout, Vec<usize>>,
}

impl GuestRam {
    pub fn new(len: usize) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(BASE, len)]).expect("the host has memory");
        Self {
            memory: Arc::new(memory),
            len,
            books: Mutex::default(),
        }
    }

    /// The memory, for a device side.
    pub fn memory(&self) -> Arc<GuestMemoryMmap> {
        Arc::clone(&self.memory)
    }
}

// SAFETY: every block is a part of its own of a mapping that lives as long as the allocator, zeroed
// each time it is taken, and `addr` is what `vm-memory` calls it. The base has any block's
// alignment.
unsafe impl DmaAllocator for GuestRam {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        let mut books = self.books.lock().expect("no test panics with the lock");
        let offset = match books.free.get_mut(&layout).and_then(Vec::pop) {
            Some(offset) => offset,
            None => {
                let start = books.used.next_multiple_of(layout.align());
                let end = start.checked_add(layout.size()).ok_or(DmaError::BadSize)?;
                if end > self.len {
                    return Err(DmaError::OutOfMemory);
                }
                books.used = end;
                start
            }
        };
        let addr = BASE.unchecked_add(offset as u64);
        self.memory
            .write_slice(&vec![0; layout.size()], addr)
            .expect("inside the memory");
        let ptr = self
            .memory
            .get_host_address(addr)
            .expect("inside the memory");
        let ptr = NonNull::new(ptr).expect("a mapping does not start at zero");
        Ok(DmaBlock {
            ptr,
            addr: DmaAddr(addr.raw_value()),
            layout,
        })
    }

    unsafe fn deallocate(&self, block: DmaBlock) {
        let offset = usize::try_from(block.addr.0 - BASE.raw_value()).expect("64 bits");
        let mut books = self.books.lock().expect("no test panics with the lock");
        books.free.entry(block.layout).or_default().push(offset);
    }
}
