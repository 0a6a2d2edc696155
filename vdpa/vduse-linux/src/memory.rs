//! The driver's memory: what the kernel has mapped for the device, found piece by piece.
//!
//! All queues of an address space share what was found. What the kernel withdraws is forgotten by
//! all of them, and unmapped with the last, before the kernel is told that it is gone.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::mm::ProtFlags;
use vduse_protocol::{IotlbEntry, Permission};
use virtq::DmaAddr;
use virtq::device::{Access, Fault, Memory, Piece};

use crate::device_file::DeviceFile;
use crate::mapping::Mapping;

/// How many mappings are kept, and looked through for each address: all that `vhost_vdpa` lets a
/// driver have (its parameter `max_iotlb_entries`).
const MAPPINGS_MAX: usize = 2048;

/// An address space of a device.
#[derive(Debug)]
pub(crate) struct Space {
    device: Arc<DeviceFile>,
    number: u32,
    found: Mutex<Vec<Arc<Found>>>,
    generation: AtomicU64,
}

/// A range of addresses and the memory behind it.
#[derive(Debug)]
struct Found {
    start: u64,
    last: u64,
    permission: Permission,
    mapping: Mapping,
}

impl Space {
    pub(crate) fn new(device: Arc<DeviceFile>, number: u32) -> Arc<Self> {
        Arc::new(Self {
            device,
            number,
            found: Mutex::default(),
            generation: AtomicU64::new(0),
        })
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Forgets what overlaps a range. The queues do when they look at the generation.
    pub(crate) fn withdraw(&self, start: u64, last: u64) {
        let mut found = self.lock();
        found.retain(|found| found.last < start || last < found.start);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Finds the mapping of an address. The kernel is asked while nobody withdraws anything, so
    /// that what it says is not older than what was withdrawn.
    fn find(&self, address: u64) -> Option<Arc<Found>> {
        let mut all = self.lock();
        if let Some(known) = all.iter().find(|found| found.contains(address)) {
            return Some(Arc::clone(known));
        }
        if all.len() >= MAPPINGS_MAX {
            return None;
        }
        let (entry, file) = self.device.mapping(self.number, address, address).ok()??;
        let found = Arc::new(Found::new(&entry, address, file)?);
        all.push(Arc::clone(&found));
        Some(found)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Found>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
    /// Maps what the kernel says lies behind `address`, if that makes sense.
    fn new(entry: &IotlbEntry, address: u64, file: impl std::os::fd::AsFd) -> Option<Self> {
        let &IotlbEntry {
            offset,
            start,
            last,
            permission,
            ..
        } = entry;
        let permission = permission?;
        if !(start..=last).contains(&address) {
            return None;
        }
        let access = match permission {
            Permission::Read => ProtFlags::READ,
            Permission::Write => ProtFlags::WRITE,
            Permission::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        let length = (last - start).checked_add(1)?;
        Some(Self {
            start,
            last,
            permission,
            mapping: Mapping::new(file, offset, length, access).ok()?,
        })
    }

    fn contains(&self, address: u64) -> bool {
        (self.start..=self.last).contains(&address)
    }

    fn permits(&self, access: Access) -> bool {
        matches!(
            (self.permission, access),
            (Permission::ReadWrite, _)
                | (Permission::Read, Access::Read)
                | (Permission::Write, Access::Write)
        )
    }

    /// As much of `len` bytes at `address` as there is, if the first may be accessed.
    fn piece(&self, address: u64, len: u32, access: Access) -> Option<Result<Piece, Fault>> {
        if !self.contains(address) {
            return None;
        }
        if !self.permits(access) {
            return Some(Err(Fault::Permission));
        }
        let ptr = self.mapping.at(address - self.start)?;
        // One more than what is behind, or all that was asked for.
        let left = u32::try_from(self.last - address).map_or(len, |behind| {
            behind.checked_add(1).map_or(len, |left| left.min(len))
        });
        Some(Ok(Piece {
            addr: DmaAddr(address),
            ptr,
            len: left,
        }))
    }
}

/// The driver's memory as one queue sees it.
pub struct QueueMemory {
    space: Arc<Space>,
    seen: Cell<u64>,
    known: RefCell<Vec<Arc<Found>>>,
}

impl QueueMemory {
    pub(crate) fn new(space: &Arc<Space>) -> Self {
        Self {
            seen: Cell::new(space.generation.load(Ordering::Acquire)),
            space: Arc::clone(space),
            known: RefCell::default(),
        }
    }

    /// Reads a number of a ring.
    pub(crate) fn load16(&self, address: u64) -> Result<u16, Fault> {
        let cell = self.cell::<AtomicU16>(address, Access::Read)?;
        #[expect(unsafe_code, reason = "memory that the driver writes, as a number")]
        // SAFETY: the cell is readable, aligned, and alive while `self` is borrowed.
        let cell = unsafe { cell.as_ref() };
        Ok(u16::from_le(cell.load(Ordering::Acquire)))
    }

    /// Writes a number of a ring, after all that was written before.
    pub(crate) fn store16(&self, address: u64, value: u16) -> Result<(), Fault> {
        let cell = self.cell::<AtomicU16>(address, Access::Write)?;
        #[expect(unsafe_code, reason = "memory that the driver reads, as a number")]
        // SAFETY: the cell is writable, aligned, and alive while `self` is borrowed.
        let cell = unsafe { cell.as_ref() };
        cell.store(value.to_le(), Ordering::Release);
        Ok(())
    }

    /// The same, twice as long.
    pub(crate) fn store32(&self, address: u64, value: u32) -> Result<(), Fault> {
        let cell = self.cell::<AtomicU32>(address, Access::Write)?;
        #[expect(unsafe_code, reason = "memory that the driver reads, as a number")]
        // SAFETY: the cell is writable, aligned, and alive while `self` is borrowed.
        let cell = unsafe { cell.as_ref() };
        cell.store(value.to_le(), Ordering::Release);
        Ok(())
    }

    fn cell<T>(&self, address: u64, access: Access) -> Result<NonNull<T>, Fault> {
        // A number has eight bytes at most.
        let size = size_of::<T>() as u32;
        let piece = self.translate(DmaAddr(address), size, access)?;
        let ptr = piece.ptr.cast::<T>();
        let whole = piece.len == size && ptr.is_aligned();
        whole.then_some(ptr).ok_or(Fault::Straddles)
    }
}

#[expect(
    unsafe_code,
    reason = "rings take this module's word for where memory is"
)]
// SAFETY: a piece lies inside a mapping that contains its address, has the permission, and is kept
// until `generation` returns another number. What maps it makes no references into it.
unsafe impl Memory for QueueMemory {
    #[inline]
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Piece, Fault> {
        let mut known = self.known.borrow_mut();
        let mut pieces = known.iter();
        if let Some(piece) = pieces.find_map(|found| found.piece(addr.0, len, access)) {
            return piece;
        }
        let found = self.space.find(addr.0).ok_or(Fault::NoMapping)?;
        let piece = found.piece(addr.0, len, access);
        known.push(found);
        piece.unwrap_or(Err(Fault::NoMapping))
    }

    #[inline]
    fn generation(&self) -> u64 {
        let now = self.space.generation.load(Ordering::Acquire);
        if now != self.seen.replace(now) {
            self.known.borrow_mut().clear();
        }
        now
    }
}

impl fmt::Debug for QueueMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueMemory")
            .field("space", &self.space.number)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Kernel;

    #[test]
    fn driver_may_have_all_mappings_that_linux_lets_it_have() {
        let kernel = Kernel::new(false);
        let device = Arc::new(kernel.device().0);
        let memory = QueueMemory::new(&Space::new(device, 0));
        for start in (0..2048).map(|number| number * 4096) {
            let mut state = kernel.lock();
            (state.entry.start, state.entry.last) = (start, start + 4095);
            drop(state);
            let piece = memory.translate(DmaAddr(start), 1, Access::Read);
            assert!(piece.is_ok(), "{start:#x}");
        }
    }
}
