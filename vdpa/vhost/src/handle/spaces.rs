//! The requests about address spaces, and the messages about memory.

use vdpa::dma::{Addressing, IovaSpace};
use vdpa::iotlb::IovaRange;

use crate::worker_channel::Command;
use crate::{IotlbMessage, VhostError};

use super::VhostHandle;
use super::vrings::queue_error;

impl VhostHandle {
    /// How many groups of queues there are. The queues of a group share an address space.
    #[must_use]
    pub fn group_count(&self) -> u16 {
        self.client.device.group_count()
    }

    /// How many address spaces there are.
    #[must_use]
    pub fn address_space_count(&self) -> u16 {
        self.client.device.space_count()
    }

    /// The group that a queue belongs to.
    ///
    /// # Errors
    /// [`VhostError::NoSuchQueue`]; [`VhostError::Broken`], if the device names a group that it
    /// does not have.
    pub fn vring_group(&self, queue: u16) -> Result<u16, VhostError> {
        let device = &self.client.device;
        self.client
            .with(|_| device.queue_group(queue).map_err(queue_error))
    }

    /// The group whose address space the rings of a queue are in, where that is not the group of
    /// the queue.
    ///
    /// # Errors
    /// As for [`vring_group`](Self::vring_group); [`VhostError::Unsupported`], if there is no such
    /// group.
    pub fn vring_desc_group(&self, queue: u16) -> Result<u16, VhostError> {
        let device = &self.client.device;
        self.client.with(|_| {
            let group = device.descriptor_group(queue).map_err(queue_error)?;
            group.ok_or(VhostError::Unsupported)
        })
    }

    /// Puts a group into an address space, until the next reset.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::Invalid`], if there is no such group or address
    /// space; [`VhostError::Busy`] from `DRIVER_OK` on; [`VhostError::Unsupported`], if there is
    /// only one.
    pub async fn set_group_asid(&self, group: u16, asid: u16) -> Result<(), VhostError> {
        self.client.with_owned(|_| Ok(()))?;
        let command = Command::SetGroupAsid(group, asid);
        self.client.channel.carry_out(command).await
    }

    /// From the first address that the device can use to the last.
    ///
    /// # Errors
    /// [`VhostError::HungUp`].
    pub fn iova_range(&self) -> Result<IovaRange, VhostError> {
        let memory = self.client.memory.lock();
        let memory = memory.as_ref().ok_or(VhostError::HungUp)?;
        Ok(memory.attachment().iova_range())
    }

    /// The addresses that the device can use.
    ///
    /// # Errors
    /// [`VhostError::HungUp`].
    pub fn iova_space(&self) -> Result<IovaSpace, VhostError> {
        let memory = self.client.memory.lock();
        let memory = memory.as_ref().ok_or(VhostError::HungUp)?;
        Ok(memory.attachment().iova_space().clone())
    }

    /// Which addresses the device uses: any, or those where the memory lies.
    ///
    /// # Errors
    /// [`VhostError::HungUp`].
    pub fn addressing(&self) -> Result<Addressing, VhostError> {
        let memory = self.client.memory.lock();
        let memory = memory.as_ref().ok_or(VhostError::HungUp)?;
        Ok(memory.attachment().addressing())
    }

    /// Changes what the device can reach.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::Invalid`], if there is no such address space, another
    /// one than 0 is named without `IOTLB_ASID`, or the message does not fit the open batch or the
    /// lack of one; [`VhostError::Unsupported`] for a batch without `IOTLB_BATCH`;
    /// [`VhostError::EmptyRange`]; [`VhostError::RangeWraps`]; [`VhostError::NotReachable`];
    /// [`VhostError::BeyondMemory`]; [`VhostError::NoPermission`]; [`VhostError::Exists`];
    /// [`VhostError::OverQuota`]; [`VhostError::TooManyMappings`]; [`VhostError::OutOfResources`].
    /// After any of them nothing has changed.
    pub fn message(&self, message: IotlbMessage) -> Result<(), VhostError> {
        let acknowledged = self.client.with_owned(|state| Ok(state.backend))?;
        let mut memory = self.client.memory.lock();
        let memory = memory.as_mut().ok_or(VhostError::HungUp)?;
        memory.handle(message, acknowledged)
    }

    /// Waits until every earlier change of an address space holds: afterwards the device uses no
    /// memory that was taken away before.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::Invalid`], if there is no such address space;
    /// [`VhostError::Timeout`], if the device may still use such memory.
    pub async fn settle(&self, asid: u16) -> Result<(), VhostError> {
        let spaces = self.client.device.space_count();
        self.client
            .with_owned(|_| (asid < spaces).then_some(()).ok_or(VhostError::Invalid))?;
        self.client.channel.carry_out(Command::Settle(asid)).await
    }
}
