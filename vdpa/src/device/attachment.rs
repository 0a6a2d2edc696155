//! The right to change what a device can reach, and what has been mapped by it.
//!
//! A device has at most one [`Attachment`]. It is obtained and given back while the device is as a
//! reset has left it, so that no owner's memory is ever reached on behalf of another one. It is
//! taken through the [claim](super::VdpaClaim) of the device's driver and ends with that. Should it
//! be dropped while the device runs, the device keeps what was mapped until its next reset.

mod difference;
mod lease;
mod log;
mod owner_slot;
mod platform_addr;
mod route;
mod space;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;

use crate::bus::Claim;
use crate::dma::{Addressing, DmaFaults, IovaSpace, Isolation, MapTarget, Owner, Trust};
use crate::iotlb::{Iotlb, IovaRange, Permission};
use crate::ops::{Backing, DmaModel, OpError};

use super::{VdpaDevice, presence};

use self::lease::Lease;
use self::route::MapNotifier;

pub(super) use self::owner_slot::OwnerSlot;

/// Why a device cannot be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The device, or another one that cannot be told from it, belongs to somebody.
    #[error("the device, or one that an IOMMU cannot keep apart from it, belongs to {0}")]
    Taken(Owner),
    /// Nothing would keep the device away from memory that is not the client's.
    #[error("nothing isolates the device")]
    NoIsolation,
    /// The device is not as a reset has left it.
    #[error("the device has not been reset")]
    WrongState,
    /// The device has been removed.
    #[error("the device is gone")]
    Gone,
    /// The claim of the device has ended.
    #[error("the device belongs to another driver, or to none")]
    NotOwner,
    /// The device or the IOMMU refuses an empty address space.
    #[error("no empty address space can be had: {0}")]
    Device(OpError),
}

/// What stands in the way of a device that is there and still its driver's.
impl From<OpError> for AttachError {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Gone => Self::Gone,
            OpError::NotOwner => Self::NotOwner,
            error => Self::Device(error),
        }
    }
}

/// The right to change what a device can reach.
pub struct Attachment {
    device: Arc<VdpaDevice>,
    lease: Arc<Lease>,
}

impl VdpaDevice {
    /// What keeps the device away from memory that was not mapped for it.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        match self.ops.dma_model() {
            DmaModel::Incremental(_) | DmaModel::Whole(_) => Isolation::OnChip,
            DmaModel::Platform if self.bypasses_iommu() => Isolation::None,
            DmaModel::Platform if self.config.platform.isolates(&self.config.dma) => {
                Isolation::Iommu
            }
            DmaModel::Platform => Isolation::None,
        }
    }

    /// Whether the device does not promise that its requests pass the platform's IOMMU: what it
    /// means if it does not offer `ACCESS_PLATFORM` (VIRTIO 1.2, 6.1).
    fn bypasses_iommu(&self) -> bool {
        !self
            .ops
            .device_features()
            .contains(virtio::F::ACCESS_PLATFORM)
    }

    /// Whose the device's address spaces are.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        self.owner_slot.owner()
    }

    /// Whether the device uses no memory: a reset has left it so, or it is not there any more.
    fn is_at_rest(&self) -> bool {
        self.is_gone() || self.session.lock().is_fresh()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.presence.load(Ordering::Acquire) == presence::GONE
    }

    /// Whom to tell of changes.
    fn map_notifier(&self, space: u16) -> MapNotifier<'_> {
        if self.is_gone() {
            MapNotifier::Nobody
        } else {
            MapNotifier::Device {
                ops: &*self.ops,
                space,
            }
        }
    }
}

impl Claim<VdpaDevice> {
    /// Takes the right to change what the device can reach, which is nothing yet. The device must
    /// be as a reset has left it.
    ///
    /// `trust` decides what becomes of a client without isolation.
    ///
    /// # Errors
    /// [`AttachError`]: nothing has changed.
    pub fn attach(&self, owner: Owner, trust: Trust) -> Result<Arc<Attachment>, AttachError> {
        let lease = self.owner_slot.begin(self, || {
            self.usable()?;
            if self.session.lock().is_fresh() {
                Lease::new(self, owner, trust)
            } else {
                Err(AttachError::WrongState)
            }
        })?;
        Ok(Arc::new(Attachment {
            device: Arc::clone(self),
            lease,
        }))
    }
}

impl Attachment {
    /// The device.
    #[must_use]
    pub fn device(&self) -> &Arc<VdpaDevice> {
        &self.device
    }

    /// How many address spaces the device has.
    #[must_use]
    pub fn space_count(&self) -> u16 {
        self.lease.space_count()
    }

    /// From the first address that it can use to the last.
    #[must_use]
    pub fn iova_range(&self) -> IovaRange {
        self.iova_space().hull()
    }

    /// The addresses that it can use.
    #[must_use]
    pub fn iova_space(&self) -> &IovaSpace {
        self.lease.iova_space()
    }

    /// What an IOMMU has refused the device since the attachment was made.
    #[must_use]
    pub fn dma_faults(&self) -> DmaFaults {
        let faults = self.device.config.dma.dma_faults();
        faults.since(self.lease.faults_before())
    }

    /// Which addresses it uses.
    #[must_use]
    pub fn addressing(&self) -> Addressing {
        self.lease.addressing()
    }

    /// Lets the device reach `backing` at `range` in an address space.
    ///
    /// # Errors
    /// Nothing has changed: [`OpError::NotOwner`], if the attachment has been given back or the
    /// claim has ended; [`OpError::Gone`], if the device is being removed; [`OpError::OutOfRange`],
    /// if there is no such address space, the device has no such addresses, or the memory is
    /// shorter; [`OpError::Invalid`], if nothing is permitted, or the memory lies elsewhere and
    /// nobody translates; [`OpError::Overlap`]; [`OpError::OutOfResources`]; whatever the device
    /// answers.
    pub fn map(
        &self,
        space: u16,
        range: IovaRange,
        permission: Permission,
        backing: Backing,
    ) -> Result<(), OpError> {
        let notifier = self.device.map_notifier(space);
        let result = self.lease.edit(space, |route, space| {
            self.usable()?;
            if !self.iova_space().contains(range) {
                return Err(OpError::OutOfRange);
            }
            space.map(route, &notifier, range, permission, &backing)
        });
        if result == Err(OpError::NotOwner) {
            self.device.config.dma.count_foreign_map();
        }
        // The last share of the memory does not go back to where it came from with a lock held.
        drop(backing);
        result
    }

    /// Whether the device is there, and the claim by which it was attached to has not ended.
    fn usable(&self) -> Result<(), OpError> {
        self.device.present()?;
        if self.lease.is_orphaned() {
            Err(OpError::NotOwner)
        } else {
            Ok(())
        }
    }

    /// Takes a range away from the device, and returns how many of its bytes were mapped. Mappings
    /// that reach beyond it keep the rest.
    ///
    /// # Errors
    /// Nothing has changed:
    /// [`OpError::NotOwner`], if the attachment has been given back;
    /// [`OpError::OutOfRange`], if there is no such address space;
    /// [`OpError::OutOfResources`], if a mapping would have to be split and there is no room;
    /// whatever the device answers.
    pub fn unmap(&self, space: u16, range: IovaRange) -> Result<u64, OpError> {
        let notifier = self.device.map_notifier(space);
        let mut removed = Vec::new();
        self.lease.edit(space, |route, space| {
            space.unmap(route, &notifier, range, &mut removed)
        })
    }

    /// Several changes of an address space follow. A device that takes its address spaces as a
    /// whole, and an IOMMU, learn of them at the end, all others as they come.
    ///
    /// # Errors
    /// [`OpError::WrongState`], if a batch has been begun already; [`OpError::NotOwner`];
    /// [`OpError::OutOfRange`].
    pub fn begin_batch(&self, space: u16) -> Result<(), OpError> {
        let notifier = self.device.map_notifier(space);
        self.lease
            .edit(space, |route, space| space.begin_batch(route, &notifier))
    }

    /// Tells the device what has not been told.
    ///
    /// # Errors
    /// Whatever the device answers: then it is as before the batch, and so is what is mapped.
    /// [`OpError::WrongState`], if no batch has been begun; [`OpError::NotOwner`];
    /// [`OpError::OutOfRange`].
    pub fn end_batch(&self, space: u16) -> Result<(), OpError> {
        let notifier = self.device.map_notifier(space);
        let mut forgotten = None;
        self.lease.edit(space, |route, space| {
            space.end_batch(route, &notifier, &mut forgotten)
        })
    }

    /// Waits until every earlier change of an address space holds.
    ///
    /// # Errors
    /// [`OpError::Timeout`], if the device may still use memory that was taken away;
    /// [`OpError::NotOwner`]; [`OpError::OutOfRange`].
    pub async fn settle(&self, space: u16) -> Result<(), OpError> {
        self.lease.edit(space, |_, _| Ok(()))?;
        match self.device.map_notifier(space) {
            MapNotifier::Device { ops, space } => self.device.in_time(ops.settle(space)).await,
            MapNotifier::Nobody => Ok(()),
        }
    }

    /// Takes everything in an address space away from the device, and ends a batch.
    ///
    /// # Errors
    /// Whatever the device answers: nothing has changed. [`OpError::NotOwner`];
    /// [`OpError::OutOfRange`].
    pub fn reset_map(&self, space: u16) -> Result<(), OpError> {
        let notifier = self.device.map_notifier(space);
        let mut forgotten = None;
        self.lease.edit(space, |route, space| {
            space.reset(route, &notifier, &mut forgotten)
        })
    }

    /// How many bytes are mapped in all address spaces.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        self.lease.mapped_bytes()
    }

    /// Looks at what is mapped in an address space, with the lock held that changes need.
    ///
    /// # Errors
    /// [`OpError::NotOwner`]; [`OpError::OutOfRange`].
    pub fn with_table<R>(
        &self,
        space: u16,
        look: impl FnOnce(&Iotlb<Backing>) -> R,
    ) -> Result<R, OpError> {
        self.lease.edit(space, |_, space| Ok(look(space.table())))
    }

    /// Gives the right back, after a reset: the device reaches nothing more, and somebody else can
    /// have it.
    ///
    /// # Errors
    /// [`OpError::WrongState`], if the device is not as a reset has left it.
    pub async fn detach(&self) -> Result<(), OpError> {
        let _turn = self.device.turn.lock().await;
        if !self.device.is_at_rest() {
            return Err(OpError::WrongState);
        }
        self.device.owner_slot.end(&self.device, &self.lease);
        Ok(())
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.lease.orphan();
        if self.device.is_at_rest() {
            self.device.owner_slot.end(&self.device, &self.lease);
        }
    }
}

/// The first address space, where a kernel driver has all its memory.
// SAFETY: each call is one of the device's.
unsafe impl MapTarget for Attachment {
    fn addressing(&self) -> Addressing {
        self.addressing()
    }

    fn iova_space(&self) -> IovaSpace {
        self.iova_space().clone()
    }

    fn map(
        &self,
        range: IovaRange,
        permission: Permission,
        backing: Backing,
    ) -> Result<(), OpError> {
        self.map(0, range, permission, backing)
    }

    fn unmap(&self, range: IovaRange) -> Result<(), OpError> {
        self.unmap(0, range).map(drop)
    }

    fn begin_batch(&self) -> Result<(), OpError> {
        self.begin_batch(0)
    }

    fn end_batch(&self) -> Result<(), OpError> {
        self.end_batch(0)
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("device", self.device.node())
            .field("lease", &self.lease)
            .finish()
    }
}
