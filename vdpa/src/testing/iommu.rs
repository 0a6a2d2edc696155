//! An IOMMU that a test can look through.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;

use spin::Mutex;
use virtq::DmaAddr;

use crate::dma::{DmaFault, DmaFaultKind, IovaSpace, IsolationUnit};
use crate::iotlb::{Capacity, Fault, Iotlb, IovaRange, Permission, Target};
use crate::platform::{DomainChange, DomainError, IommuDomain};

pub(super) const PAGE: usize = 0x1000;

/// The addresses that it translates: 48 bits, without the first page.
const RANGE: (u64, u64) = (PAGE as u64, (1 << 48) - 1);

/// Stands before every unit that has a requester id.
pub struct FakeIommu {
    ranges: Vec<IovaRange>,
    reserved: Vec<IovaRange>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The units that are in a domain.
    entered: BTreeMap<UnitId, Entered>,
    fault: Option<(usize, DomainError)>,
    calls: usize,
    invalidations: usize,
    unmapped: Vec<IovaRange>,
}

struct Entered {
    unit: Weak<IsolationUnit>,
    table: Table,
}

/// Requester id and PASID.
type UnitId = (u32, Option<u32>);

type Table = Arc<Mutex<Iotlb<DmaAddr>>>;

impl FakeIommu {
    /// An IOMMU in which no unit is isolated.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let (first, last) = RANGE;
        let all = IovaRange::from_bounds(first, last).expect("in order");
        Self::with_addresses(&[all], &[])
    }

    /// One that translates these addresses, of which some are reserved.
    #[must_use]
    pub fn with_addresses(ranges: &[IovaRange], reserved: &[IovaRange]) -> Arc<Self> {
        Arc::new(Self {
            ranges: ranges.to_vec(),
            reserved: reserved.to_vec(),
            state: Mutex::default(),
        })
    }

    /// Whether the unit reaches only what is mapped for it.
    #[must_use]
    pub fn isolates(&self, unit: &IsolationUnit) -> bool {
        id(unit).is_some_and(|id| self.state.lock().entered.contains_key(&id))
    }

    /// What is mapped for an isolated unit.
    #[must_use]
    pub fn mapped(&self, unit: &IsolationUnit) -> Vec<(IovaRange, Permission, DmaAddr)> {
        let state = self.state.lock();
        let entered = id(unit).and_then(|id| state.entered.get(&id));
        let Some(entered) = entered else {
            return Vec::new();
        };
        let table = entered.table.lock();
        let mappings = table.iter();
        mappings
            .map(|mapping| (mapping.range, mapping.permission, *mapping.target))
            .collect()
    }

    /// A unit accesses one address: where that leads, or a fault that it is told of.
    #[must_use]
    pub fn access(
        &self,
        requester_id: u32,
        pasid: Option<u32>,
        addr: u64,
        access: Permission,
    ) -> Option<DmaAddr> {
        let state = self.state.lock();
        let entered = state.entered.get(&(requester_id, pasid))?;
        let table = entered.table.lock();
        let kind = match table.translate(addr, access) {
            Ok(mapping) => return Some(mapping.target.advance(addr - mapping.range.first())),
            Err(Fault::NoMapping(_)) => DmaFaultKind::NotMapped,
            Err(Fault::Permission(_)) => DmaFaultKind::NotPermitted,
        };
        if let Some(unit) = entered.unit.upgrade() {
            unit.report_fault(DmaFault { addr, access, kind });
        }
        None
    }

    /// How often a domain was changed.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.state.lock().calls
    }

    /// How often that has invalidated what a unit may have kept.
    #[must_use]
    pub fn invalidations(&self) -> usize {
        self.state.lock().invalidations
    }

    /// The ranges that were taken away.
    #[must_use]
    pub fn unmapped(&self) -> Vec<IovaRange> {
        self.state.lock().unmapped.clone()
    }

    /// Lets the operation of a domain that comes after `skip` others fail.
    pub fn fail_after(&self, skip: usize, error: DomainError) {
        self.state.lock().fault = Some((skip, error));
    }

    /// Whether the fault has not happened yet, and takes it away.
    pub fn take_fault(&self) -> bool {
        self.state.lock().fault.take().is_some()
    }

    /// An empty domain for the unit.
    pub(super) fn domain(
        self: &Arc<Self>,
        unit: &Arc<IsolationUnit>,
    ) -> Option<Arc<dyn IommuDomain>> {
        Some(Arc::new(Domain {
            iommu: Arc::clone(self),
            id: id(unit)?,
            unit: Arc::downgrade(unit),
            table: Arc::new(Mutex::new(Iotlb::new(Capacity::Unlimited))),
        }))
    }

    fn step(&self) -> Result<(), DomainError> {
        let mut state = self.state.lock();
        match state.fault.take() {
            Some((0, error)) => Err(error),
            Some((left, error)) => {
                state.fault = Some((left - 1, error));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn id(unit: &IsolationUnit) -> Option<UnitId> {
    Some((unit.requester_id()?, unit.pasid()))
}

struct Domain {
    iommu: Arc<FakeIommu>,
    id: UnitId,
    unit: Weak<IsolationUnit>,
    table: Table,
}

// SAFETY: what the fake says is what the fake's devices look up.
unsafe impl IommuDomain for Domain {
    fn iova_ranges(&self) -> Vec<IovaRange> {
        self.iommu.ranges.clone()
    }

    fn reserved(&self) -> Vec<IovaRange> {
        self.iommu.reserved.clone()
    }

    fn enter(&self) -> Result<(), DomainError> {
        self.iommu.step()?;
        let mut state = self.iommu.state.lock();
        let entered = Entered {
            unit: Weak::clone(&self.unit),
            table: Arc::clone(&self.table),
        };
        let earlier = state.entered.insert(self.id, entered);
        assert!(earlier.is_none(), "a unit is in one domain at a time");
        Ok(())
    }

    fn change(&self, changes: &[DomainChange]) -> Result<(), DomainError> {
        self.iommu.step()?;
        let mut new = self.table.lock().clone();
        for change in changes {
            self.make(&mut new, *change)?;
        }
        *self.table.lock() = new;
        let unmapped = changes.iter().filter_map(|change| match change {
            DomainChange::Unmap(range) => Some(*range),
            DomainChange::Map { .. } => None,
        });
        let mut state = self.iommu.state.lock();
        let before = state.unmapped.len();
        state.unmapped.extend(unmapped);
        state.calls += 1;
        state.invalidations += usize::from(state.unmapped.len() > before);
        Ok(())
    }
}

impl Domain {
    fn make(&self, table: &mut Iotlb<DmaAddr>, change: DomainChange) -> Result<(), DomainError> {
        match change {
            DomainChange::Map {
                range,
                permission,
                addr,
            } => {
                if !is_whole_pages(range) || !addr.0.is_multiple_of(PAGE as u64) {
                    return Err(DomainError::Misaligned);
                }
                let space = IovaSpace::new(&self.iommu.ranges, &self.iommu.reserved);
                assert!(
                    space.is_some_and(|space| space.contains(range)),
                    "{range} cannot be mapped"
                );
                let mapped = table.map(range, permission, addr);
                mapped.expect("it permits something and overlaps no other");
                Ok(())
            }
            DomainChange::Unmap(range) => {
                if !is_whole_pages(range) {
                    return Err(DomainError::Misaligned);
                }
                let unmapped = table.unmap(range);
                unmapped.map(drop).map_err(|_| DomainError::OutOfResources)
            }
        }
    }
}

fn is_whole_pages(range: IovaRange) -> bool {
    range.first().is_multiple_of(PAGE as u64)
        && (range.last().wrapping_add(1)).is_multiple_of(PAGE as u64)
}

impl Drop for Domain {
    fn drop(&mut self) {
        let mut state = self.iommu.state.lock();
        let entered = state.entered.get(&self.id);
        if entered.is_some_and(|entered| Arc::ptr_eq(&entered.table, &self.table)) {
            state.entered.remove(&self.id);
        }
    }
}

impl fmt::Debug for FakeIommu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeIommu")
            .field("isolated", &self.state.lock().entered.len())
            .finish_non_exhaustive()
    }
}
