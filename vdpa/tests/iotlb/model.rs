//! The plainest table: what is mapped where, address by address.

use vdpa::iotlb::{Fault, IovaRange, Permission};

/// How many addresses there are at each end of the address space.
pub const WINDOW: u64 = 48;

/// What is mapped at one address: which mapping, with which permission, to which place.
pub type Cell = (u64, Permission, u64);

/// The addresses at both ends of the address space. All between them go together, as one.
#[derive(Clone, Debug)]
pub struct Model {
    cells: Vec<Option<Cell>>,
    mapped: u64,
}

/// The address that stands for all in the middle.
pub const MIDDLE: u64 = 1 << 63;

/// The index of an address.
fn index(addr: u64) -> usize {
    let index = if addr < WINDOW {
        addr
    } else if addr > u64::MAX - WINDOW {
        2 * WINDOW - (u64::MAX - addr)
    } else {
        WINDOW
    };
    usize::try_from(index).unwrap()
}

/// The addresses of a range, one for the middle.
fn addresses(range: IovaRange) -> impl Iterator<Item = u64> {
    let low = 0..WINDOW;
    let high = (u64::MAX - WINDOW + 1)..=u64::MAX;
    low.chain([MIDDLE])
        .chain(high)
        .filter(move |addr| range.first() <= *addr && *addr <= range.last())
}

/// How many addresses one stands for.
fn weight(addr: u64) -> u128 {
    if addr == MIDDLE {
        (1 << 64) - 2 * u128::from(WINDOW)
    } else {
        1
    }
}

impl Model {
    pub fn new() -> Self {
        let count = usize::try_from(2 * WINDOW + 1).unwrap();
        Self {
            cells: vec![None; count],
            mapped: 0,
        }
    }

    pub fn overlaps(&self, range: IovaRange) -> bool {
        addresses(range).any(|addr| self.cells[index(addr)].is_some())
    }

    pub fn map(&mut self, range: IovaRange, permission: Permission, place: u64) {
        self.mapped += 1;
        for addr in addresses(range) {
            let place = place.wrapping_add(addr - range.first());
            self.cells[index(addr)] = Some((self.mapped, permission, place));
        }
    }

    /// Returns how many addresses were mapped.
    pub fn unmap(&mut self, range: IovaRange) -> u128 {
        addresses(range)
            .filter(|addr| self.cells[index(*addr)].take().is_some())
            .map(weight)
            .sum()
    }

    /// The mapping at each address.
    pub fn walk(
        &self,
        range: IovaRange,
        wanted: Permission,
    ) -> impl Iterator<Item = (u64, Result<u64, Fault>)> {
        addresses(range).map(move |addr| {
            let result = match self.cells[index(addr)] {
                None => Err(Fault::NoMapping(addr)),
                Some((_, permission, _)) if !permission.contains(wanted) => {
                    Err(Fault::Permission(addr))
                }
                Some((_, _, place)) => Ok(place),
            };
            (addr, result)
        })
    }

    /// How many mappings there are: stretches of one mapping.
    pub fn mappings(&self) -> usize {
        let ids: Vec<_> = self
            .cells
            .iter()
            .map(|cell| cell.map(|(id, ..)| id))
            .collect();
        let starts = ids.iter().zip([None].iter().chain(&ids));
        starts
            .filter(|(now, before)| now.is_some() && now != before)
            .count()
    }
}
