//! The memory of a driver, reached directly or through an IOTLB of small, scattered pages.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use virtq::DmaAddr;
use virtq::device::{Access, Direct, Fault, Memory, Region, Translate, Translated, Translation};

use super::Buffer;

/// The size of a mapping: so small that rings and buffers are scattered over many.
pub const PAGE: u64 = 64;
/// How much memory a driver has: less where an interpreter goes through every page.
pub const LEN: u64 = if cfg!(miri) { 0x4000 } else { 0x4_0000 };
/// Where the driver's addresses start, and those below the translation. Neither is a pointer's
/// value.
const BASE: u64 = 0x7000_0000;
const BELOW: u64 = 0x2_0000_0000;

pub type SharedMemory = Arc<dyn Memory + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    ReadOnly,
    WriteOnly,
    ReadWrite,
}

/// A translation whose mappings a test may change.
pub struct Iotlb {
    /// How many pages there are.
    count: u64,
    /// What has become of pages that were changed; an unmapped one allows nothing.
    changed: Mutex<BTreeMap<u64, Option<Permission>>>,
    generation: AtomicU64,
}

impl Iotlb {
    fn new(count: u64) -> Self {
        Self {
            count,
            changed: Mutex::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// What a page allows, which is everything at first.
    fn permission(&self, page: u64) -> Option<Permission> {
        let changed = self.changed.lock().unwrap().get(&page).copied();
        changed.unwrap_or((page < self.count).then_some(Permission::ReadWrite))
    }

    fn change(&self, addr: DmaAddr, permission: Option<Permission>) {
        let page = page_of(addr).unwrap();
        assert!(self.permission(page).is_some(), "it is mapped");
        self.changed.lock().unwrap().insert(page, permission);
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub fn protect(&self, addr: DmaAddr, permission: Permission) {
        self.change(addr, Some(permission));
    }

    pub fn unmap(&self, addr: DmaAddr) {
        self.change(addr, None);
    }
}

/// The page of an address of the driver, if it is not below all of them.
fn page_of(addr: DmaAddr) -> Option<u64> {
    Some(addr.0.checked_sub(BASE)? / PAGE)
}

/// A permutation of so many pages.
fn scatter(page: u64, count: u64) -> u64 {
    (page * 7 + 3) % count
}

impl Translate for Iotlb {
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Translation, Fault> {
        let page = page_of(addr).ok_or(Fault::NoMapping)?;
        let permission = self.permission(page).ok_or(Fault::NoMapping)?;
        match (permission, access) {
            (Permission::ReadWrite, _)
            | (Permission::ReadOnly, Access::Read)
            | (Permission::WriteOnly, Access::Write) => {}
            _ => return Err(Fault::Permission),
        }
        let inside = addr.0 % PAGE;
        let left = u32::try_from(PAGE - inside).unwrap();
        Ok(Translation {
            addr: DmaAddr(BELOW + scatter(page, self.count) * PAGE + inside),
            len: len.min(left),
        })
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// Heap memory, without a Rust reference to it.
struct Ram {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to the value; nothing is bound to a thread.
unsafe impl Send for Ram {}
// SAFETY: as for `Send`; the tests access the memory from one thread.
unsafe impl Sync for Ram {}

impl Ram {
    fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len, 4096).unwrap();
        // SAFETY: the tests ask for more than no memory.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        Self { ptr, layout }
    }

    fn at(&self, offset: u64) -> NonNull<u8> {
        let offset = usize::try_from(offset).unwrap();
        assert!(offset < self.layout.size());
        // SAFETY: just checked.
        unsafe { self.ptr.add(offset) }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and dropped once.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) };
    }
}

/// What keeps the memory alive for a queue that outlives its world.
struct Kept {
    memory: Box<dyn Memory + Send + Sync>,
    _ram: Arc<Ram>,
}

// SAFETY: as the memory inside, which the value keeps alive.
unsafe impl Memory for Kept {
    fn translate(
        &self,
        addr: DmaAddr,
        len: u32,
        access: Access,
    ) -> Result<virtq::device::Piece, Fault> {
        self.memory.translate(addr, len, access)
    }

    fn generation(&self) -> u64 {
        self.memory.generation()
    }
}

/// The memory of one driver.
pub struct World {
    ram: Arc<Ram>,
    iotlb: Option<Arc<Iotlb>>,
    len: u64,
    next: Cell<u64>,
}

impl World {
    /// Memory in two regions, next to each other for the driver and the other way round on the
    /// host.
    pub fn direct() -> Self {
        Self::direct_of(LEN)
    }

    pub fn direct_of(len: u64) -> Self {
        let ram = Arc::new(Ram::new(usize::try_from(len).unwrap()));
        Self {
            ram,
            iotlb: None,
            len,
            next: Cell::new(0),
        }
    }

    /// Memory in pages of which no two are neighbours on both sides.
    pub fn translated() -> Self {
        let mut world = Self::direct();
        world.iotlb = Some(Arc::new(Iotlb::new(world.len / PAGE)));
        world
    }

    pub fn both() -> [Self; 2] {
        [Self::direct(), Self::translated()]
    }

    pub fn iotlb(&self) -> &Iotlb {
        self.iotlb.as_ref().unwrap()
    }

    /// What a device side reaches this memory by.
    pub fn memory(&self) -> SharedMemory {
        let region = |addr: u64, from: u64, len: u64| Region {
            addr: DmaAddr(addr),
            ptr: self.ram.at(from),
            len: usize::try_from(len).unwrap(),
        };
        let half = self.len / 2;
        let memory: Box<dyn Memory + Send + Sync> = match &self.iotlb {
            None => {
                let regions = vec![region(BASE, half, half), region(BASE + half, 0, half)];
                // SAFETY: the regions lie in the allocation, which `Kept` keeps.
                Box::new(unsafe { Direct::new(regions) }.unwrap())
            }
            Some(iotlb) => {
                // SAFETY: as above.
                let below = unsafe { Direct::new(vec![region(BELOW, 0, self.len)]) }.unwrap();
                Box::new(Translated::new(Arc::clone(iotlb), below))
            }
        };
        Arc::new(Kept {
            memory,
            _ram: Arc::clone(&self.ram),
        })
    }

    /// Memory for the driver's use; always zero at first, never given back.
    pub fn allocate(&self, len: usize, align: u64) -> DmaAddr {
        let start = self.next.get().next_multiple_of(align);
        let end = start + len as u64;
        assert!(end <= self.len, "the driver is out of memory");
        self.next.set(end);
        DmaAddr(BASE + start)
    }

    pub fn used(&self) -> u64 {
        self.next.get()
    }

    pub fn write(&self, addr: DmaAddr, bytes: &[u8]) {
        for (offset, &byte) in (0..).zip(bytes) {
            // SAFETY: `host` gives a byte of the allocation.
            unsafe { self.host(addr.0 + offset).write(byte) };
        }
    }

    pub fn read(&self, addr: DmaAddr, len: usize) -> Vec<u8> {
        // SAFETY: as for `write`.
        (0..len as u64)
            .map(|offset| unsafe { self.host(addr.0 + offset).read() })
            .collect()
    }

    pub fn write_u16(&self, addr: u64, value: u16) {
        self.write(DmaAddr(addr), &value.to_le_bytes());
    }

    pub fn read_u16(&self, addr: u64) -> u16 {
        u16::from_le_bytes(self.read(DmaAddr(addr), 2).try_into().unwrap())
    }

    pub fn read_u32(&self, addr: u64) -> u32 {
        u32::from_le_bytes(self.read(DmaAddr(addr), 4).try_into().unwrap())
    }

    /// A descriptor of a split ring, anywhere. (A packed one has the last two fields the other way
    /// round.)
    pub fn write_descriptor(&self, at: u64, buffer: Buffer, third: u16, fourth: u16) {
        self.write(DmaAddr(at), &buffer.addr.0.to_le_bytes());
        self.write(DmaAddr(at + 8), &buffer.len.to_le_bytes());
        self.write_u16(at + 12, third);
        self.write_u16(at + 14, fourth);
    }

    fn host(&self, addr: u64) -> NonNull<u8> {
        let offset = addr.checked_sub(BASE).unwrap();
        assert!(offset < self.len);
        match &self.iotlb {
            None => self.ram.at((offset + self.len / 2) % self.len),
            Some(iotlb) => self
                .ram
                .at(scatter(offset / PAGE, iotlb.count) * PAGE + offset % PAGE),
        }
    }
}
