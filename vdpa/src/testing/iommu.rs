//! An IOMMU that a test can look through.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use spin::Mutex;
use virtq::DmaAddr;

use crate::dma::IsolationUnit;
use crate::iotlb::{Capacity, Iotlb, IovaRange, MapError, Permission};
use crate::ops::OpError;
use crate::platform::IommuDomain;

const PAGE: u64 = 0x1000;

/// The addresses that it translates: 48 bits, without the first page.
const RANGE: (u64, u64) = (PAGE, (1 << 48) - 1);

/// Stands before every unit that has a requester id.
#[derive(Default)]
pub struct FakeIommu(Mutex<State>);

#[derive(Default)]
struct State {
    /// The units that are in a domain.
    entered: BTreeMap<UnitId, Table>,
    fault: Option<(usize, OpError)>,
}

/// Requester id and PASID.
type UnitId = (u32, Option<u32>);

type Table = Arc<Mutex<Iotlb<DmaAddr>>>;

impl FakeIommu {
    /// An IOMMU in which no unit is isolated.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether the unit reaches only what is mapped for it.
    #[must_use]
    pub fn isolates(&self, unit: &IsolationUnit) -> bool {
        id(unit).is_some_and(|id| self.0.lock().entered.contains_key(&id))
    }

    /// What is mapped for an isolated unit.
    #[must_use]
    pub fn mapped(&self, unit: &IsolationUnit) -> Vec<(IovaRange, Permission, DmaAddr)> {
        let state = self.0.lock();
        let table = id(unit).and_then(|id| state.entered.get(&id));
        let Some(table) = table else {
            return Vec::new();
        };
        let table = table.lock();
        let mappings = table.iter();
        mappings
            .map(|mapping| (mapping.range, mapping.permission, *mapping.target))
            .collect()
    }

    /// Lets the operation of a domain that comes after `skip` others fail.
    pub fn fail_after(&self, skip: usize, error: OpError) {
        self.0.lock().fault = Some((skip, error));
    }

    /// Whether the fault has not happened yet, and takes it away.
    pub fn take_fault(&self) -> bool {
        self.0.lock().fault.take().is_some()
    }

    /// An empty domain for the unit.
    pub(super) fn domain(self: &Arc<Self>, unit: &IsolationUnit) -> Option<Arc<dyn IommuDomain>> {
        Some(Arc::new(Domain {
            iommu: Arc::clone(self),
            unit: id(unit)?,
            table: Arc::new(Mutex::new(Iotlb::new(Capacity::Unlimited))),
        }))
    }

    fn step(&self) -> Result<(), OpError> {
        let mut state = self.0.lock();
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
    unit: UnitId,
    table: Table,
}

// SAFETY: what the fake says is what the fake's devices look up.
unsafe impl IommuDomain for Domain {
    fn iova_range(&self) -> IovaRange {
        let (first, last) = RANGE;
        IovaRange::from_bounds(first, last).expect("in order")
    }

    fn enter(&self) -> Result<(), OpError> {
        self.iommu.step()?;
        let mut state = self.iommu.0.lock();
        let earlier = state.entered.insert(self.unit, Arc::clone(&self.table));
        assert!(earlier.is_none(), "a unit is in one domain at a time");
        Ok(())
    }

    fn map(&self, range: IovaRange, permission: Permission, addr: DmaAddr) -> Result<(), OpError> {
        self.iommu.step()?;
        if !is_whole_pages(range) || !addr.0.is_multiple_of(PAGE) {
            return Err(OpError::Invalid);
        }
        Ok(self.table.lock().map(range, permission, addr)?)
    }

    fn unmap(&self, range: IovaRange) -> Result<(), OpError> {
        self.iommu.step()?;
        if !is_whole_pages(range) {
            return Err(OpError::Invalid);
        }
        self.table.lock().unmap(range).map_err(MapError::from)?;
        Ok(())
    }
}

fn is_whole_pages(range: IovaRange) -> bool {
    range.first().is_multiple_of(PAGE) && range.last() % PAGE == PAGE - 1
}

impl Drop for Domain {
    fn drop(&mut self) {
        let mut state = self.iommu.0.lock();
        let entered = state.entered.get(&self.unit);
        if entered.is_some_and(|table| Arc::ptr_eq(table, &self.table)) {
            state.entered.remove(&self.unit);
        }
    }
}

impl fmt::Debug for FakeIommu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeIommu")
            .field("isolated", &self.0.lock().entered.len())
            .finish_non_exhaustive()
    }
}
