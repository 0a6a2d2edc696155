//! What an IOMMU can tell apart, and whose it is.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Mutex;

use crate::Node;

use crate::ops::OpError;
use crate::platform::IommuDomain;

use super::shared_domain::SharedDomain;
use super::{DmaFault, DmaFaults, Owner};

/// The devices whose DMA requests look alike: those of one requester id and PASID.
///
/// It belongs to the kernel, to one client or to nobody. Devices that translate themselves do not
/// need it to tell them apart; all others of one unit have the same owner, and the same domain of
/// the IOMMU that stands before them.
#[derive(Debug)]
pub struct IsolationUnit {
    node: Arc<Node>,
    /// Those of the functions that cannot be told apart, and of bridges that send in their name.
    requester_ids: Vec<u32>,
    /// Those above, from the root on.
    bridges: Vec<u32>,
    pasid: Option<u32>,
    tenants: Mutex<Option<Tenants>>,
    foreign_maps: AtomicU64,
    faults: Mutex<DmaFaults>,
}

struct Tenants {
    owner: Owner,
    count: usize,
    /// Left with the last of them.
    domain: Option<Arc<dyn IommuDomain>>,
}

impl IsolationUnit {
    /// The unit of the requests that `node` issues, with its PCI requester id (the segment in the
    /// upper half, bus, device and function in the lower) and its PASID, where it has them.
    ///
    /// All devices that share both must share the unit.
    #[must_use]
    pub fn new(node: &Arc<Node>, requester_id: Option<u32>, pasid: Option<u32>) -> Arc<Self> {
        Self::with_parts(node, requester_id.into_iter().collect(), Vec::new(), pasid)
    }

    /// The unit of the requests that carry one of these requester ids, and have passed these
    /// bridges, which are named by their requester ids from the root on.
    #[must_use]
    pub fn of_requesters(node: &Arc<Node>, ids: Vec<u32>, bridges: Vec<u32>) -> Arc<Self> {
        Self::with_parts(node, ids, bridges, None)
    }

    fn with_parts(
        node: &Arc<Node>,
        requester_ids: Vec<u32>,
        bridges: Vec<u32>,
        pasid: Option<u32>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node: Arc::clone(node),
            requester_ids,
            bridges,
            pasid,
            tenants: Mutex::new(None),
            foreign_maps: AtomicU64::new(0),
            faults: Mutex::default(),
        })
    }

    /// Who issues the requests.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The PCI segment (upper half) and requester id (lower half) of its first function.
    #[must_use]
    pub fn requester_id(&self) -> Option<u32> {
        self.requester_ids.first().copied()
    }

    /// All ids that its requests may carry.
    #[must_use]
    pub fn requester_ids(&self) -> &[u32] {
        &self.requester_ids
    }

    /// The requester ids of the bridges that its requests pass, from the root on.
    #[must_use]
    pub fn bridges(&self) -> &[u32] {
        &self.bridges
    }

    /// The process address space id.
    #[must_use]
    pub fn pasid(&self) -> Option<u32> {
        self.pasid
    }

    /// Whose the unit is, as far as the platform translates for it.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        self.tenants.lock().as_ref().map(|tenants| tenants.owner)
    }

    /// How often somebody wanted to map memory who did not own the device any more.
    #[must_use]
    pub fn foreign_maps(&self) -> u64 {
        self.foreign_maps.load(Ordering::Relaxed)
    }

    /// An IOMMU has refused the unit an access. Not from interrupt context, where who looks at the
    /// faults cannot be waited for.
    ///
    /// A device that goes on and on writes a few lines, not as many as it likes.
    pub fn report_fault(&self, fault: DmaFault) {
        let count = {
            let mut faults = self.faults.lock();
            faults.count = faults.count.saturating_add(1);
            faults.last = Some(fault);
            faults.count
        };
        if count.is_power_of_two() {
            log::warn!("{}: DMA fault {count}: {fault}", self.node.path());
        }
    }

    /// What an IOMMU has refused the unit.
    #[must_use]
    pub fn dma_faults(&self) -> DmaFaults {
        *self.faults.lock()
    }

    pub(crate) fn count_foreign_map(&self) {
        self.foreign_maps.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the unit, or a share of it if the kernel has it and wants it, until the claim is
    /// dropped.
    pub(crate) fn claim(self: &Arc<Self>, owner: Owner) -> Result<Claim, Owner> {
        let mut tenants = self.tenants.lock();
        match &mut *tenants {
            None => {
                *tenants = Some(Tenants {
                    owner,
                    count: 1,
                    domain: None,
                });
            }
            Some(tenants) if (tenants.owner, owner) == (Owner::Kernel, Owner::Kernel) => {
                tenants.count += 1;
            }
            Some(other) => return Err(other.owner),
        }
        drop(tenants);
        Ok(Claim(Arc::clone(self)))
    }
}

/// A share of an isolation unit.
#[derive(Debug)]
pub(crate) struct Claim(Arc<IsolationUnit>);

impl Claim {
    /// The domain that the unit is in for its owner: the one that it has, or else the one that
    /// `make` finds, which it enters.
    ///
    /// # Errors
    /// The IOMMU has no room: the unit is in no domain.
    pub(crate) fn domain(
        &self,
        make: impl FnOnce() -> Option<Arc<dyn IommuDomain>>,
    ) -> Result<Option<Arc<dyn IommuDomain>>, OpError> {
        let mut tenants = self.0.tenants.lock();
        let Some(tenants) = &mut *tenants else {
            return Ok(None);
        };
        if tenants.domain.is_none()
            && let Some(domain) = make()
        {
            domain.enter()?;
            tenants.domain = Some(match tenants.owner {
                Owner::Kernel => Arc::new(SharedDomain::new(domain)),
                Owner::Client => domain,
            });
        }
        Ok(tenants.domain.clone())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut tenants = self.0.tenants.lock();
        if let Some(left) = &mut *tenants {
            left.count -= 1;
            if left.count == 0 {
                // With the lock held: the unit has left the domain before it enters another.
                *tenants = None;
            }
        }
    }
}

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants")
            .field("owner", &self.owner)
            .field("count", &self.count)
            .field("in_domain", &self.domain.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_shared_by_the_kernel_with_itself_alone() {
        let unit = IsolationUnit::new(&Node::root("pci0000:00:04.0"), Some(0x20), None);
        let first = unit.claim(Owner::Kernel).unwrap();
        let second = unit.claim(Owner::Kernel).unwrap();
        drop(first);
        assert_eq!(unit.claim(Owner::Client).unwrap_err(), Owner::Kernel);
        drop(second);
        let client = unit.claim(Owner::Client).unwrap();
        assert_eq!(unit.claim(Owner::Client).unwrap_err(), Owner::Client);
        assert_eq!(unit.owner(), Some(Owner::Client));
        drop(client);
        assert_eq!(unit.owner(), None);
    }
}
