//! The other side of what is measured: as little as makes the measured side do its work. It trusts
//! everybody, looks at no buffer, and is the same for all contenders in one ring format.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use virtq::{DmaAddr, RingAddresses};

use super::chains::BUFFER_LEN;
use super::{Load, SIZE, Work, memory};

const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;
const F_AVAIL: u16 = 1 << 7;
const F_USED: u16 = 1 << 15;

/// A part of a ring.
#[derive(Clone, Copy)]
struct Cells(NonNull<u8>);

impl Cells {
    fn at(addr: DmaAddr) -> Self {
        Self(memory::host(addr))
    }

    fn u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: the callers stay in the ring and aligned; the memory is never unmapped.
        unsafe { AtomicU16::from_ptr(self.ptr(offset).cast().as_ptr()) }
    }

    fn u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as for `u16`.
        unsafe { AtomicU32::from_ptr(self.ptr(offset).cast().as_ptr()) }
    }

    fn u64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as for `u16`.
        unsafe { AtomicU64::from_ptr(self.ptr(offset).cast().as_ptr()) }
    }

    fn ptr(&self, offset: usize) -> NonNull<u8> {
        // SAFETY: as for `u16`.
        unsafe { self.0.add(offset) }
    }
}

/// A device that uses every chain at once and writes nothing.
pub(super) struct SplitDevice {
    avail: Cells,
    used: Cells,
    index: u16,
}

impl SplitDevice {
    pub(super) fn new(addresses: RingAddresses) -> Self {
        Self {
            avail: Cells::at(addresses.driver),
            used: Cells::at(addresses.device),
            index: 0,
        }
    }

    #[inline]
    pub(super) fn serve(&mut self) {
        let published = self.avail.u16(2).load(Ordering::Acquire);
        while self.index != published {
            let place = usize::from(self.index % SIZE);
            let head = self.avail.u16(4 + 2 * place).load(Ordering::Relaxed);
            self.used
                .u64(4 + 8 * place)
                .store(u64::from(head), Ordering::Relaxed);
            self.index = self.index.wrapping_add(1);
        }
        self.used.u16(2).store(self.index, Ordering::Release);
    }
}

/// The split device alone: somebody moves the available index, and nothing else.
pub(super) struct SplitDeviceAlone {
    pub(super) device: SplitDevice,
    pub(super) batch: u16,
}

impl Work for SplitDeviceAlone {
    #[inline]
    fn round(&mut self) {
        let published = self.device.index.wrapping_add(self.batch);
        self.device.avail.u16(2).store(published, Ordering::Release);
        self.device.serve();
    }
}

/// A place in a packed ring, with the wrap counter there.
#[derive(Clone, Copy)]
struct Place {
    index: u16,
    wrap: bool,
}

impl Place {
    fn start() -> Self {
        Self {
            index: 0,
            wrap: true,
        }
    }

    fn offset(self) -> usize {
        16 * usize::from(self.index)
    }

    fn after(self, count: u16) -> Self {
        let index = self.index + count;
        if index < SIZE {
            Self { index, ..self }
        } else {
            Self {
                index: index - SIZE,
                wrap: !self.wrap,
            }
        }
    }
}

/// A device that uses every chain at once, writes nothing, and knows how long chains are.
pub(super) struct PackedDevice {
    ring: Cells,
    place: Place,
    descriptors: u16,
}

impl PackedDevice {
    pub(super) fn new(addresses: RingAddresses, descriptors: u16) -> Self {
        Self {
            ring: Cells::at(addresses.descriptor),
            place: Place::start(),
            descriptors,
        }
    }

    #[inline]
    pub(super) fn serve(&mut self) {
        loop {
            let flags = self
                .ring
                .u16(self.place.offset() + 14)
                .load(Ordering::Acquire);
            if (flags & F_AVAIL != 0) != self.place.wrap || (flags & F_USED != 0) == self.place.wrap
            {
                return;
            }
            let last = self.place.after(self.descriptors - 1);
            let id = self.ring.u16(last.offset() + 12).load(Ordering::Relaxed);
            self.ring
                .u16(self.place.offset() + 12)
                .store(id, Ordering::Relaxed);
            self.ring
                .u32(self.place.offset() + 8)
                .store(0, Ordering::Relaxed);
            let flags = if self.place.wrap { F_AVAIL | F_USED } else { 0 };
            self.ring
                .u16(self.place.offset() + 14)
                .store(flags, Ordering::Release);
            self.place = self.place.after(self.descriptors);
        }
    }
}

/// The packed device alone: somebody makes the first descriptor of each chain available, and
/// nothing else.
pub(super) struct PackedDeviceAlone {
    pub(super) device: PackedDevice,
    pub(super) batch: u16,
}

impl Work for PackedDeviceAlone {
    #[inline]
    fn round(&mut self) {
        let mut place = self.device.place;
        for _ in 0..self.batch {
            let flags = if place.wrap { F_AVAIL } else { F_USED };
            self.device
                .ring
                .u16(place.offset() + 14)
                .store(flags, Ordering::Release);
            place = place.after(self.device.descriptors);
        }
        self.device.serve();
    }
}

/// Where a driver here has its ring.
pub(super) fn ring_for_driver() -> RingAddresses {
    let allocate = |len, align| {
        let layout = std::alloc::Layout::from_size_align(len, align).expect("a ring's layout");
        memory::allocator().allocate(layout).expect("memory").addr
    };
    let size = usize::from(SIZE);
    RingAddresses {
        descriptor: allocate(16 * size, 4096),
        driver: allocate(6 + 2 * size, 64),
        device: allocate(6 + 8 * size, 64),
    }
}

/// The chain of a driver here, segment by segment: two are readable if there are many, else one.
fn segments(load: Load) -> impl Iterator<Item = (u64, u32, u16)> {
    let dma = memory::allocator();
    let layout = std::alloc::Layout::from_size_align(BUFFER_LEN, 16).expect("a buffer's layout");
    (0..load.buffers).map(move |place| {
        let next = if place + 1 < load.buffers { F_NEXT } else { 0 };
        let write = if place < load.buffers.div_ceil(8) {
            0
        } else {
            F_WRITE
        };
        let addr = dma.allocate(layout).expect("memory").addr.0;
        (addr, BUFFER_LEN as u32, next | write)
    })
}

/// A driver that publishes the same chains over and over and takes none back: in a split ring their
/// descriptors stay what they are.
pub(super) struct SplitDriver {
    avail: Cells,
    load: Load,
    index: u16,
}

impl SplitDriver {
    pub(super) fn new(addresses: RingAddresses, load: Load) -> Self {
        let table = Cells::at(addresses.descriptor);
        for chain in 0..usize::from(load.batch) {
            for (place, (addr, len, flags)) in segments(load).enumerate() {
                let index = chain * load.buffers + place;
                let next = if flags & F_NEXT == 0 {
                    0
                } else {
                    index as u64 + 1
                };
                let rest = u64::from(len) | u64::from(flags) << 32 | next << 48;
                table.u64(16 * index).store(addr, Ordering::Relaxed);
                table.u64(16 * index + 8).store(rest, Ordering::Relaxed);
            }
        }
        Self {
            avail: Cells::at(addresses.driver),
            load,
            index: 0,
        }
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        for chain in 0..self.load.batch {
            let place = usize::from(self.index % SIZE);
            let head = chain * self.load.buffers as u16;
            self.avail.u16(4 + 2 * place).store(head, Ordering::Relaxed);
            self.index = self.index.wrapping_add(1);
        }
        self.avail.u16(2).store(self.index, Ordering::Release);
    }
}

impl Work for SplitDriver {
    #[inline]
    fn round(&mut self) {
        self.publish();
    }
}

/// A driver that publishes the same chains over and over and takes none back: in a packed ring it
/// has to write their descriptors each time.
pub(super) struct PackedDriver {
    ring: Cells,
    load: Load,
    segments: Vec<(u64, u32, u16)>,
    place: Place,
}

impl PackedDriver {
    pub(super) fn new(addresses: RingAddresses, load: Load) -> Self {
        let ring = Cells::at(addresses.descriptor);
        Self {
            ring,
            load,
            segments: segments(load).collect(),
            place: Place::start(),
        }
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        for id in 0..self.load.batch {
            for &(addr, len, flags) in &self.segments {
                let flags = flags | if self.place.wrap { F_AVAIL } else { F_USED };
                let rest = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
                self.ring
                    .u64(self.place.offset())
                    .store(addr, Ordering::Relaxed);
                self.ring
                    .u64(self.place.offset() + 8)
                    .store(rest, Ordering::Release);
                self.place = self.place.after(1);
            }
        }
    }
}

impl Work for PackedDriver {
    #[inline]
    fn round(&mut self) {
        self.publish();
    }
}
