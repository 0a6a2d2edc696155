//! The memory of a split ring, and the only code that touches it.
//!
//! Layout and field order: VIRTIO 1.2, 2.7.5 (descriptors), 2.7.6 (available ring), 2.7.8 (used ring).
//! Every access is one atomic access of the field's own width: the device reads and writes the same
//! memory at the same time. Nothing here is believed or checked; that is the queue's work.

use alloc::sync::Arc;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::{DeviceHold, DmaAddr, DmaAllocator, DmaBuffer, DmaError, Segment};

/// The size of a descriptor in bytes.
pub(crate) const DESCRIPTOR: usize = 16;

/// The buffer goes on in the descriptor named by `next`.
pub(crate) const F_NEXT: u16 = 1;
/// The device writes the buffer.
pub(crate) const F_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub(crate) const F_INDIRECT: u16 = 4;

/// Available ring: the driver wants no interrupt.
pub(crate) const AVAIL_F_NO_INTERRUPT: u16 = 1;
/// Used ring: the device wants no notification.
const USED_F_NO_NOTIFY: u16 = 1;

/// One descriptor, before it is written to the ring or to an indirect table.
#[derive(Clone, Copy)]
pub(crate) struct Descriptor {
    pub(crate) segment: Segment,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

/// The three parts of a split ring in one allocation, and the indirect tables in another.
pub(crate) struct SplitRing {
    memory: ManuallyDrop<DmaBuffer>,
    tables: ManuallyDrop<Option<DmaBuffer>>,
    hold: Arc<DeviceHold>,
    size: u16,
    avail: usize,
    used: usize,
    table_len: u16,
}

impl SplitRing {
    /// Lays out a ring of `size` entries, a power of two, with one indirect table of `table_len`
    /// entries for each descriptor.
    pub(crate) fn new(
        size: u16,
        align: usize,
        table_len: u16,
        dma: &Arc<dyn DmaAllocator>,
        hold: &Arc<DeviceHold>,
    ) -> Result<Self, DmaError> {
        let entries = usize::from(size);
        let align = align.max(DESCRIPTOR);
        let avail = (entries * DESCRIPTOR).next_multiple_of(align);
        let used = (avail + 6 + 2 * entries).next_multiple_of(align);
        let total = used + 6 + 8 * entries;
        let memory = DmaBuffer::with_alignment(dma, total, align)?;
        let tables = match usize::from(table_len) * entries * DESCRIPTOR {
            0 => None,
            bytes => Some(DmaBuffer::new(dma, bytes)?),
        };
        Ok(Self {
            memory: ManuallyDrop::new(memory),
            tables: ManuallyDrop::new(tables),
            hold: Arc::clone(hold),
            size,
            avail,
            used,
            table_len,
        })
    }

    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    pub(crate) fn descriptor_addr(&self) -> DmaAddr {
        self.memory.addr()
    }

    pub(crate) fn avail_addr(&self) -> DmaAddr {
        self.memory.addr().offset(self.avail)
    }

    pub(crate) fn used_addr(&self) -> DmaAddr {
        self.memory.addr().offset(self.used)
    }

    /// Writes descriptor `index` of the ring.
    #[inline]
    pub(crate) fn write_descriptor(&self, index: u16, descriptor: Descriptor) {
        assert!(index < self.size);
        write_descriptor(&self.memory, usize::from(index) * DESCRIPTOR, descriptor);
    }

    /// Writes entry `index` of the indirect table that belongs to descriptor `head`.
    #[inline]
    pub(crate) fn write_indirect(&self, head: u16, index: u16, descriptor: Descriptor) {
        assert!(head < self.size && index < self.table_len);
        let tables = self
            .tables
            .as_ref()
            .expect("a table length above 0 comes with tables");
        let entry = usize::from(head) * usize::from(self.table_len) + usize::from(index);
        write_descriptor(tables, entry * DESCRIPTOR, descriptor);
    }

    /// Names the first `len` entries of the indirect table of descriptor `head`.
    #[inline]
    pub(crate) fn indirect_segment(&self, head: u16, len: u16) -> Segment {
        let tables = self
            .tables
            .as_ref()
            .expect("a table length above 0 comes with tables");
        let offset = usize::from(head) * usize::from(self.table_len) * DESCRIPTOR;
        Segment {
            addr: tables.addr().offset(offset),
            len: u32::from(len) * 16,
        }
    }

    /// Puts a chain's first descriptor into the available ring, not yet for the device to see.
    #[inline]
    pub(crate) fn write_avail(&self, index: u16, head: u16) {
        let slot = usize::from(index & (self.size - 1));
        self.u16(self.avail + 4 + 2 * slot)
            .store(head.to_le(), Ordering::Relaxed);
    }

    /// Shows the device everything up to `index`.
    #[inline]
    pub(crate) fn publish(&self, index: u16) {
        self.u16(self.avail + 2)
            .store(index.to_le(), Ordering::Release);
    }

    #[inline]
    pub(crate) fn set_avail_flags(&self, flags: u16) {
        self.u16(self.avail).store(flags.to_le(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn set_used_event(&self, index: u16) {
        let offset = self.avail + 4 + 2 * usize::from(self.size);
        self.u16(offset).store(index.to_le(), Ordering::Relaxed);
    }

    /// How far the device has got. What it wrote before is visible afterwards.
    #[inline]
    pub(crate) fn used_index(&self) -> u16 {
        u16::from_le(self.u16(self.used + 2).load(Ordering::Acquire))
    }

    /// The id and the written length that the device reports in used entry `index`.
    #[inline]
    pub(crate) fn used_entry(&self, index: u16) -> (u32, u32) {
        let offset = self.used + 4 + 8 * usize::from(index & (self.size - 1));
        let id = self.u32(offset).load(Ordering::Relaxed);
        let len = self.u32(offset + 4).load(Ordering::Relaxed);
        (u32::from_le(id), u32::from_le(len))
    }

    /// Whether the device wants no notification, where the event index is not negotiated.
    #[inline]
    pub(crate) fn no_notify(&self) -> bool {
        u16::from_le(self.u16(self.used).load(Ordering::Relaxed)) & USED_F_NO_NOTIFY != 0
    }

    /// The available index whose publication the device wants to be notified of.
    #[inline]
    pub(crate) fn avail_event(&self) -> u16 {
        let offset = self.used + 4 + 8 * usize::from(self.size);
        u16::from_le(self.u16(offset).load(Ordering::Relaxed))
    }

    fn u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: every caller names a 16-bit field of the layout, aligned and inside the allocation
        // that `self` owns; all access to it, the device's too, is atomic for its width.
        unsafe { AtomicU16::from_ptr(field(&self.memory, offset, 2).cast().as_ptr()) }
    }

    fn u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as for `u16`, with a 32-bit field.
        unsafe { AtomicU32::from_ptr(field(&self.memory, offset, 4).cast().as_ptr()) }
    }
}

impl Drop for SplitRing {
    fn drop(&mut self) {
        if self.hold.is_held() {
            return;
        }
        // SAFETY: the ring is being dropped, so this happens once.
        unsafe { ManuallyDrop::drop(&mut self.memory) };
        // SAFETY: likewise.
        unsafe { ManuallyDrop::drop(&mut self.tables) };
    }
}

/// Writes a descriptor as two 64-bit stores.
#[inline]
fn write_descriptor(memory: &DmaBuffer, offset: usize, descriptor: Descriptor) {
    let Descriptor {
        segment,
        flags,
        next,
    } = descriptor;
    let rest = u64::from(segment.len) | u64::from(flags) << 32 | u64::from(next) << 48;
    let cells = [(offset, segment.addr.0), (offset + 8, rest)];
    for (offset, value) in cells {
        // SAFETY: the callers name an aligned descriptor inside the allocation that the buffer owns.
        let cell = unsafe { AtomicU64::from_ptr(field(memory, offset, 8).cast().as_ptr()) };
        cell.store(value.to_le(), Ordering::Relaxed);
    }
}

/// The field of `width` bytes at `offset`.
#[inline]
fn field(memory: &DmaBuffer, offset: usize, width: usize) -> NonNull<u8> {
    debug_assert!(offset + width <= memory.len() && offset.is_multiple_of(width));
    // SAFETY: the layout was computed from the allocation's size, so the field lies inside it.
    unsafe { memory.ptr().add(offset) }
}
