//! The tables that are compared. Ours and the interval tree keep each mapping apart; ours alone
//! refuses an overlap, all others replace what was there or keep both.

use rangemap::RangeInclusiveMap;
use vdpa::iotlb::{Capacity, Iotlb, IovaRange, Permission};
use virtq::DmaAddr;
use vm_memory::{GuestAddress, Permissions, iommu};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Ours.
    Ours,
    /// Ours, which keeps the age of its mappings.
    /// The IOTLB of rust-vmm.
    VmMemory,
    /// The map with which that one is made, alone.
    RangeMap,
    /// An interval tree.
    Iset,
}

/// Ranges that lead to places.
pub trait Table {
    fn map(&mut self, first: u64, len: u64, place: u64);
    fn unmap(&mut self, first: u64, len: u64);
    /// Where an address leads that is mapped.
    fn translate(&self, addr: u64) -> u64;
}

impl Contender {
    pub const ALL: [Self; 4] = [Self::Ours, Self::VmMemory, Self::RangeMap, Self::Iset];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::VmMemory => "vm-memory Iotlb",
            Self::RangeMap => "rangemap RangeInclusiveMap",
            Self::Iset => "iset IntervalMap",
        }
    }

    pub fn table(self) -> Box<dyn Table> {
        match self {
            Self::Ours => Box::new(Iotlb::<DmaAddr>::new(Capacity::Refuse(1 << 20))),
            Self::VmMemory => Box::new(iommu::Iotlb::new()),
            Self::RangeMap => Box::new(RangeInclusiveMap::<u64, u64>::new()),
            Self::Iset => Box::new(iset::IntervalMap::<u64, u64>::new()),
        }
    }
}

fn range(first: u64, len: u64) -> IovaRange {
    IovaRange::new(first, len).expect("not empty, and far from the end")
}

impl Table for Iotlb<DmaAddr> {
    fn map(&mut self, first: u64, len: u64, place: u64) {
        self.map(range(first, len), Permission::all(), DmaAddr(place))
            .expect("free");
    }

    fn unmap(&mut self, first: u64, len: u64) {
        self.unmap(range(first, len)).expect("a whole mapping");
    }

    fn translate(&self, addr: u64) -> u64 {
        let mapping = self.translate(addr, Permission::READ).expect("mapped");
        mapping.target.0 + (addr - mapping.range.first())
    }
}

impl Table for iommu::Iotlb {
    fn map(&mut self, first: u64, len: u64, place: u64) {
        let (from, to) = (GuestAddress(first), GuestAddress(place));
        self.set_mapping(from, to, len as usize, Permissions::ReadWrite)
            .expect("it never fails");
    }

    fn unmap(&mut self, first: u64, len: u64) {
        self.invalidate_mapping(GuestAddress(first), len as usize);
    }

    fn translate(&self, addr: u64) -> u64 {
        let mut pieces =
            Self::lookup(self, GuestAddress(addr), 1, Permissions::Read).expect("mapped");
        pieces.next().expect("one piece").base.0
    }
}

/// The value is the distance to the place, so that what follows each other is never merged.
impl Table for RangeInclusiveMap<u64, u64> {
    fn map(&mut self, first: u64, len: u64, place: u64) {
        self.insert(first..=first + (len - 1), place - first);
    }

    fn unmap(&mut self, first: u64, len: u64) {
        self.remove(first..=first + (len - 1));
    }

    fn translate(&self, addr: u64) -> u64 {
        addr + self.get(&addr).expect("mapped")
    }
}

impl Table for iset::IntervalMap<u64, u64> {
    fn map(&mut self, first: u64, len: u64, place: u64) {
        self.insert(first..first + len, place - first);
    }

    fn unmap(&mut self, first: u64, len: u64) {
        self.remove(first..first + len);
    }

    fn translate(&self, addr: u64) -> u64 {
        addr + self.values_overlap(addr).next().expect("mapped")
    }
}
