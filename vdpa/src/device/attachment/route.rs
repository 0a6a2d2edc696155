//! Who translates a device's addresses, and how it learns what is mapped.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::dma::{Addressing, Claim, IovaSpace, IsolationUnit, Owner, Trust};
use crate::iotlb::{Iotlb, IovaRange, Permission};
use crate::ops::{Backing, DmaModel, OpError};
use crate::platform::{DomainChange, IommuDomain};
use crate::{Platform, VdpaOps};

use super::AttachError;
use super::difference::difference;
use super::platform_addr::platform_addr;

/// Who translates.
pub(super) enum Route {
    /// The device.
    Device,
    /// The platform's IOMMU.
    Domain {
        /// What it keeps for the device.
        domain: Arc<dyn IommuDomain>,
        /// The addresses that can be mapped there.
        space: IovaSpace,
        /// Whether memory lies at other addresses there.
        addressing: Addressing,
    },
    /// Nobody: the device uses the platform's addresses.
    Identity,
}

/// Where a device that translates learns of changes.
pub(super) enum MapNotifier<'a> {
    /// From its operations, about one of its address spaces.
    Device {
        /// The operations.
        ops: &'a dyn VdpaOps,
        /// The address space.
        space: u16,
    },
    /// The device is gone.
    Nobody,
}

/// What has changed in a table.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    Map(IovaRange, Permission, &'a Backing),
    Unmap(IovaRange),
}

impl Route {
    /// The way of a device that does not translate. `bypasses`: it may use the platform's addresses
    /// whatever an IOMMU says.
    ///
    /// The kernel finds its memory at the platform's addresses. So can a device that bypasses, and
    /// one whose memory came from elsewhere.
    pub(super) fn through_platform(
        platform: &dyn Platform,
        unit: &Arc<IsolationUnit>,
        claim: &Claim,
        owner: Owner,
        trust: Trust,
        bypasses: bool,
    ) -> Result<Self, AttachError> {
        let isolated = platform.isolates(unit);
        let addressing = match (owner, trust) {
            (Owner::Client, _) if isolated && !bypasses => Addressing::Translated,
            (Owner::Client, Trust::Isolated) => return Err(AttachError::NoIsolation),
            (Owner::Client, Trust::NoIommu(_)) | (Owner::Kernel, _) => Addressing::Platform,
        };
        if !isolated {
            return Ok(Self::Identity);
        }
        let domain = claim.domain(|| platform.isolate(unit))?;
        let no_room = AttachError::Device(OpError::OutOfResources);
        let domain = domain.ok_or(no_room)?;
        let space = IovaSpace::new(&domain.iova_ranges(), &domain.reserved()).ok_or(no_room)?;
        Ok(Self::Domain {
            domain,
            space,
            addressing,
        })
    }

    pub(super) fn addressing(&self) -> Addressing {
        match self {
            Self::Device => Addressing::Translated,
            Self::Domain { addressing, .. } => *addressing,
            Self::Identity => Addressing::Platform,
        }
    }

    pub(super) fn iova_space(&self, ops: &dyn VdpaOps) -> IovaSpace {
        match self {
            Self::Device => ops.iova_range().into(),
            Self::Domain { space, .. } => space.clone(),
            Self::Identity => IovaRange::ALL.into(),
        }
    }

    /// Whether all changes of a batch are told at its end.
    pub(super) fn withholds(&self, notifier: &MapNotifier<'_>) -> bool {
        match self {
            Self::Device => notifier.takes_whole(),
            Self::Domain { .. } => true,
            Self::Identity => false,
        }
    }

    /// Whether memory can be mapped there at all.
    pub(super) fn check(&self, range: IovaRange, backing: &Backing) -> Result<(), OpError> {
        let end = u128::from(backing.offset) + range.len();
        if end > u128::from(backing.memory.len()) {
            return Err(OpError::OutOfRange);
        }
        match (self, self.addressing()) {
            (Self::Device, _) => Ok(()),
            (_, Addressing::Translated) => platform_addr(backing).map(drop),
            (_, Addressing::Platform) if platform_addr(backing)?.0 == range.first() => Ok(()),
            (_, Addressing::Platform) => Err(OpError::Invalid),
        }
    }

    /// Tells of a change, after which `table` is what is mapped.
    pub(super) fn tell(
        &self,
        notifier: &MapNotifier<'_>,
        change: Change<'_>,
        table: &Iotlb<Backing>,
    ) -> Result<(), OpError> {
        match (self, change) {
            (Self::Device, change) => notifier.tell(change, table),
            (Self::Domain { domain, .. }, Change::Map(range, permission, backing)) => {
                let addr = platform_addr(backing)?;
                Ok(domain.change(&[DomainChange::Map {
                    range,
                    permission,
                    addr,
                }])?)
            }
            (Self::Domain { domain, .. }, Change::Unmap(range)) => {
                Ok(domain.change(&[DomainChange::Unmap(range)])?)
            }
            (Self::Identity, _) => Ok(()),
        }
    }

    /// Tells of all that has been withheld.
    pub(super) fn give(
        &self,
        notifier: &MapNotifier<'_>,
        before: &Iotlb<Backing>,
        after: &Iotlb<Backing>,
    ) -> Result<(), OpError> {
        match self {
            Self::Device => notifier.give(after),
            Self::Domain { domain, .. } => match &*difference(before, after)? {
                [] => Ok(()),
                changes => Ok(domain.change(changes)?),
            },
            Self::Identity => Ok(()),
        }
    }

    /// Takes everything away that a table holds, as far as it has been told.
    pub(super) fn reset(
        &self,
        notifier: &MapNotifier<'_>,
        told: &Iotlb<Backing>,
    ) -> Result<(), OpError> {
        match self {
            Self::Device => notifier.reset(),
            Self::Domain { .. } => self.leave(told),
            Self::Identity => Ok(()),
        }
    }

    /// Takes everything away that an IOMMU was told.
    ///
    /// # Errors
    /// The IOMMU does not confirm it: the device may use the memory for ever.
    pub(super) fn leave(&self, told: &Iotlb<Backing>) -> Result<(), OpError> {
        let Self::Domain { domain, .. } = self else {
            return Ok(());
        };
        let changes: Vec<_> = told
            .iter()
            .map(|mapping| DomainChange::Unmap(mapping.range))
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        Ok(domain.change(&changes)?)
    }
}

impl MapNotifier<'_> {
    /// Whether the device takes its address space as a whole.
    fn takes_whole(&self) -> bool {
        match self {
            Self::Device { ops, .. } => matches!(ops.dma_model(), DmaModel::Whole(_)),
            Self::Nobody => false,
        }
    }

    /// Gives the device its address space, if it takes it as a whole.
    fn give(&self, table: &Iotlb<Backing>) -> Result<(), OpError> {
        match self {
            Self::Device { ops, space } => match ops.dma_model() {
                DmaModel::Whole(map) => unless_gone(map.set_map(*space, table)),
                DmaModel::Incremental(_) | DmaModel::Platform => Ok(()),
            },
            Self::Nobody => Ok(()),
        }
    }

    /// Empties the address space.
    pub(super) fn reset(&self) -> Result<(), OpError> {
        match self {
            Self::Device { ops, space } => unless_gone(ops.reset_map(*space)),
            Self::Nobody => Ok(()),
        }
    }

    fn tell(&self, change: Change<'_>, table: &Iotlb<Backing>) -> Result<(), OpError> {
        let Self::Device { ops, space } = *self else {
            return Ok(());
        };
        match (ops.dma_model(), change) {
            (DmaModel::Incremental(map), Change::Map(range, permission, backing)) => {
                map.map(space, range, permission, backing.clone())
            }
            (DmaModel::Incremental(map), Change::Unmap(range)) => {
                unless_gone(map.unmap(space, range))
            }
            (DmaModel::Whole(map), Change::Map(..)) => map.set_map(space, table),
            (DmaModel::Whole(map), Change::Unmap(_)) => unless_gone(map.set_map(space, table)),
            (DmaModel::Platform, _) => Ok(()),
        }
    }
}

/// What is gone uses no memory.
fn unless_gone(result: Result<(), OpError>) -> Result<(), OpError> {
    match result {
        Err(OpError::Gone) => Ok(()),
        result => result,
    }
}
