//! What a software device can reach: an IOTLB that control changes and the device's queues look
//! things up in.
//!
//! Not a cache: each queue has one of its own, [`DeviceTlb`](virtq::device::DeviceTlb).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Mutex;
use virtq::device::{Access, Fault, Lookup, Mapped};
use virtq::{DmaAddr, Event};

use crate::backing::Backing;
use crate::iotlb::{self, Capacity, Full, Iotlb, IovaRange, MapError, Permission};

/// One address space of a device that is a program.
///
/// Memory lives as long as it is mapped here or kept by a cache. The owner of a cache is told by an
/// event when something has been taken away ([`watch`](Self::watch)).
#[derive(Debug)]
pub struct AddressSpace {
    table: Mutex<Iotlb<Backing>>,
    capacity: usize,
    /// Grows whenever something has been taken away; changed under the table's lock.
    generation: AtomicU64,
    watchers: Mutex<Vec<Arc<Event>>>,
}

impl AddressSpace {
    /// An empty address space for so many mappings.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            table: Mutex::new(Iotlb::new(Capacity::Refuse(capacity))),
            capacity,
            generation: AtomicU64::new(0),
            watchers: Mutex::default(),
        }
    }

    /// Raises an event whenever something has been taken away, as long as the address space lives.
    pub fn watch(&self, event: Arc<Event>) {
        self.watchers.lock().push(event);
    }

    /// Maps a range.
    ///
    /// # Errors
    /// [`MapError`]: nothing has changed.
    pub fn map(
        &self,
        range: IovaRange,
        permission: Permission,
        backing: Backing,
    ) -> Result<(), MapError> {
        // On failure the memory is given back after the lock is.
        let _kept = backing.memory.clone();
        self.table.lock().map(range, permission, backing)
    }

    /// Takes a range away. Mappings that reach beyond it keep the rest.
    ///
    /// # Errors
    /// [`Full`], if a mapping would have to be split and there is no room: nothing has changed.
    pub fn unmap(&self, range: IovaRange) -> Result<(), Full> {
        let mut table = self.table.lock();
        // Memory is given back where it came from after the lock is.
        let removed: Vec<_> = table
            .overlaps(range)
            .map(|mapping| mapping.target.memory.clone())
            .collect();
        if removed.is_empty() {
            return Ok(());
        }
        table.unmap(range)?;
        self.generation.fetch_add(1, Ordering::Release);
        drop(table);
        self.tell_watchers();
        Ok(())
    }

    /// Maps what `table` says instead of everything that is mapped now.
    ///
    /// # Errors
    /// [`Full`], if these are too many mappings: nothing has changed.
    pub fn replace(&self, table: &Iotlb<Backing>) -> Result<(), Full> {
        if table.len() > self.capacity {
            return Err(Full);
        }
        let mut new = Iotlb::new(Capacity::Refuse(self.capacity));
        for mapping in table.iter() {
            let (range, permission) = (mapping.range, mapping.permission);
            // It is mapped in the other table, so nothing but room can be missing.
            new.map(range, permission, mapping.target.clone())
                .map_err(|_| Full)?;
        }
        self.swap(new);
        Ok(())
    }

    /// Takes everything away.
    pub fn clear(&self) {
        self.swap(Iotlb::new(Capacity::Refuse(self.capacity)));
    }

    fn swap(&self, new: Iotlb<Backing>) {
        let mut table = self.table.lock();
        let old = mem::replace(&mut *table, new);
        self.generation.fetch_add(1, Ordering::Release);
        drop(table);
        drop(old);
        self.tell_watchers();
    }

    fn tell_watchers(&self) {
        let watchers = self.watchers.lock().clone();
        for event in watchers {
            event.raise();
        }
    }
}

impl Lookup for AddressSpace {
    fn lookup(&self, addr: DmaAddr, access: Access) -> Result<Mapped, Fault> {
        let wanted = match access {
            Access::Read => Permission::READ,
            Access::Write => Permission::WRITE,
        };
        let table = self.table.lock();
        let mapping = table.translate(addr.0, wanted)?;
        Ok(Mapped {
            first: DmaAddr(mapping.range.first()),
            last: DmaAddr(mapping.range.last()),
            readable: mapping.permission.contains(Permission::READ),
            writable: mapping.permission.contains(Permission::WRITE),
            memory: mapping.target.memory.clone(),
            offset: mapping.target.offset,
        })
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

impl From<iotlb::Fault> for Fault {
    fn from(fault: iotlb::Fault) -> Self {
        match fault {
            iotlb::Fault::NoMapping(_) => Self::NoMapping,
            iotlb::Fault::Permission(_) => Self::Permission,
        }
    }
}
