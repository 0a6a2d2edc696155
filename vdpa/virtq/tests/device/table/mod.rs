//! What the tests of translated memory share: a table of mappings, as an IOTLB has them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use virtq::device::{Access, Fault, Lookup, Mapped};
use virtq::{DeviceMemory, DmaAddr, SharedMemory};

/// Mappings that a test may change, as an IOTLB has them.
#[derive(Default)]
pub struct Table {
    /// By their first addresses. Searching them one by one is what Miri takes minutes for.
    mappings: Mutex<BTreeMap<u64, Mapped>>,
    generation: AtomicU64,
    lookups: AtomicU64,
}

impl Table {
    pub fn map(&self, mapped: Mapped) {
        let earlier = self.mappings.lock().unwrap().insert(mapped.first.0, mapped);
        assert!(earlier.is_none(), "mappings do not overlap");
    }

    pub fn unmap(&self, first: u64) {
        self.mappings.lock().unwrap().remove(&first);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Unmaps everything and tells nobody.
    pub fn forget(&self) {
        self.mappings.lock().unwrap().clear();
    }

    /// How often it was asked.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }
}

impl Lookup for Table {
    fn lookup(&self, addr: DmaAddr, access: Access) -> Result<Mapped, Fault> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let mappings = self.mappings.lock().unwrap();
        let below = mappings.range(..=addr.0).next_back();
        let (_, mapped) = below
            .filter(|(_, mapped)| addr <= mapped.last)
            .ok_or(Fault::NoMapping)?;
        let permitted = match access {
            Access::Read => mapped.readable,
            Access::Write => mapped.writable,
        };
        permitted.then(|| mapped.clone()).ok_or(Fault::Permission)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// The whole of a memory that nobody has claimed, for all access.
pub fn mapped(first: u64, memory: &SharedMemory) -> Mapped {
    whole(first, DeviceMemory::open(memory).unwrap())
}

/// The whole of a memory, for all access.
pub fn whole(first: u64, memory: DeviceMemory) -> Mapped {
    Mapped {
        first: DmaAddr(first),
        last: DmaAddr(first + (memory.len() - 1)),
        readable: true,
        writable: true,
        memory,
        offset: 0,
    }
}
