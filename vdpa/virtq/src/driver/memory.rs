//! Ring memory on the driver's side: cells that driver and device access at the same time, and the
//! indirect tables, one for each chain that a queue can hold.
//!
//! Every access is one atomic access of the field's own width. Nothing here is believed or checked.

use alloc::sync::Arc;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::chain::describe;
use super::{Chain, DeviceHold, Segment, UsedWatch};
use crate::format::{DESCRIPTOR, F_WRITE};
use crate::{DmaAddr, DmaAllocator, DmaBuffer, DmaError, RingFeatures};

/// The fields of a descriptor of a packed ring (VIRTIO 1.2, 2.8.13), little-endian.
#[repr(C)]
pub(super) struct PackedDescriptor {
    pub(super) addr: AtomicU64,
    pub(super) len: AtomicU32,
    pub(super) id: AtomicU16,
    pub(super) flags: AtomicU16,
}

/// Memory that a device may touch at any time, until its hold is released.
pub(super) struct RingMemory {
    buffer: ManuallyDrop<DmaBuffer>,
    hold: Arc<DeviceHold>,
}

impl RingMemory {
    pub(super) fn new(
        dma: &Arc<dyn DmaAllocator>,
        len: usize,
        align: usize,
        hold: &Arc<DeviceHold>,
    ) -> Result<Self, DmaError> {
        let buffer = DmaBuffer::with_alignment(dma, len, align)?;
        Ok(Self {
            buffer: ManuallyDrop::new(buffer),
            hold: Arc::clone(hold),
        })
    }

    /// Where the device finds the byte at `offset`.
    pub(super) fn addr(&self, offset: usize) -> DmaAddr {
        self.buffer.addr().offset(offset)
    }

    /// A watch on the index at `offset`, for others.
    pub(super) fn watch(&self, offset: usize) -> UsedWatch {
        UsedWatch::new(
            self.cell(offset, 2).cast(),
            Arc::clone(self.buffer.region()),
        )
    }

    #[inline]
    pub(super) fn load16(&self, offset: usize, ordering: Ordering) -> u16 {
        u16::from_le(self.u16(offset).load(ordering))
    }

    #[inline]
    pub(super) fn store16(&self, offset: usize, value: u16, ordering: Ordering) {
        self.u16(offset).store(value.to_le(), ordering);
    }

    #[inline]
    pub(super) fn load32(&self, offset: usize) -> u32 {
        u32::from_le(self.u32(offset).load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn store32(&self, offset: usize, value: u32) {
        self.u32(offset).store(value.to_le(), Ordering::Relaxed);
    }

    /// Writes a descriptor: the segment, and the `rest` above its length.
    #[inline]
    pub(super) fn store_descriptor(&self, offset: usize, segment: Segment, rest: u64) {
        let halves = self.cell(offset, DESCRIPTOR).cast::<[AtomicU64; 2]>();
        // SAFETY: `cell` gives an aligned field inside the allocation that `self` owns, here a
        // descriptor as a whole; all access to it, the device's too, is atomic.
        let [addr, len_and_rest] = unsafe { halves.as_ref() };
        addr.store(segment.addr.0.to_le(), Ordering::Relaxed);
        let rest = u64::from(segment.len) | rest;
        len_and_rest.store(rest.to_le(), Ordering::Relaxed);
    }

    /// Where `count` cells of type `C` lie from `offset` on. They stay there as long as the memory.
    pub(super) fn cells<C>(&self, offset: usize, count: usize) -> NonNull<[C]> {
        let end = offset + count * size_of::<C>();
        assert!(
            count > 0 && end <= self.buffer.len_u32() as usize,
            "the layout lies inside the allocation"
        );
        let first = self.cell(offset, align_of::<C>()).cast();
        assert!(first.is_aligned(), "the layout is aligned");
        NonNull::slice_from_raw_parts(first, count)
    }

    fn u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: as for `store_descriptor`.
        unsafe { AtomicU16::from_ptr(self.cell(offset, 2).cast().as_ptr()) }
    }

    fn u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as for `store_descriptor`.
        unsafe { AtomicU32::from_ptr(self.cell(offset, 4).cast().as_ptr()) }
    }

    #[inline]
    fn cell(&self, offset: usize, width: usize) -> NonNull<u8> {
        // Not the length of a slice: no reference may cover what the device writes.
        let len = self.buffer.len_u32() as usize;
        assert!(offset < len, "the layout lies inside the allocation");
        debug_assert!(offset + width <= len && offset.is_multiple_of(width));
        // SAFETY: the offset lies inside the allocation.
        unsafe { self.buffer.ptr().add(offset) }
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        if !self.hold.is_held() {
            // SAFETY: the memory is being dropped, so this happens once.
            unsafe { ManuallyDrop::drop(&mut self.buffer) };
        }
    }
}

/// The tables of a queue.
pub(super) struct IndirectTables {
    memory: RingMemory,
    table_len: u16,
    /// Which descriptor format the tables have.
    format: Format,
}

/// How a table's descriptors follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// By `next` (VIRTIO 1.2, 2.7.5.3).
    Split,
    /// In order, without a flag for it (VIRTIO 1.2, 2.8.7).
    Packed,
}

impl Format {
    pub(super) fn of(features: RingFeatures) -> Self {
        if features.packed {
            Self::Packed
        } else {
            Self::Split
        }
    }
}

impl IndirectTables {
    /// One table of `table_len` entries for each of `count` chains.
    pub(super) fn new(
        format: Format,
        count: u16,
        table_len: u16,
        dma: &Arc<dyn DmaAllocator>,
        hold: &Arc<DeviceHold>,
    ) -> Result<Self, DmaError> {
        let len = usize::from(count) * usize::from(table_len) * DESCRIPTOR;
        Ok(Self {
            memory: RingMemory::new(dma, len, DESCRIPTOR, hold)?,
            table_len,
            format,
        })
    }

    /// Writes a chain of `segments` segments into table `index`, and names the table.
    #[inline]
    pub(super) fn write<T: Chain>(&self, index: u16, chain: &T, segments: u16) -> Segment {
        assert!(segments <= self.table_len, "the plan has compared them");
        let start = usize::from(index) * usize::from(self.table_len) * DESCRIPTOR;
        let mut offset = start;
        match self.format {
            Format::Split => {
                let mut next = 1u16;
                describe(chain, segments, |segment, flags| {
                    let rest = u64::from(flags) << 32 | u64::from(next) << 48;
                    self.memory.store_descriptor(offset, segment, rest);
                    offset += DESCRIPTOR;
                    next += 1;
                });
            }
            Format::Packed => describe(chain, segments, |segment, flags| {
                let rest = u64::from(flags & F_WRITE) << 48;
                self.memory.store_descriptor(offset, segment, rest);
                offset += DESCRIPTOR;
            }),
        }
        Segment::described(self.memory.addr(start), u32::from(segments) * 16)
    }
}
