//! The groups of a device's queues and the address spaces that they are in, with their checks.
//!
//! What is mapped in an address space is the business of an
//! [`Attachment`](crate::device::Attachment).
//!
//! ```compile_fail,E0599
//! # use vdpa::device::VdpaDevice;
//! # async fn attack(device: &VdpaDevice) {
//! device.set_group_space(0, 1).await;
//! # }
//! ```

use crate::bus::Claim;
use crate::ops::{Abilities, OpError};

use super::VdpaDevice;

impl VdpaDevice {
    /// What the device can do beyond the virtio specification.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        self.ops.abilities()
    }

    /// How many address spaces there are.
    #[must_use]
    pub fn space_count(&self) -> u16 {
        self.ops.address_space_count()
    }

    /// How many groups of queues there are.
    #[must_use]
    pub fn group_count(&self) -> u16 {
        self.ops.group_count()
    }

    /// The group that a queue belongs to.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue; [`OpError::Broken`], if the device names
    /// a group that it does not have.
    pub fn queue_group(&self, queue: u16) -> Result<u16, OpError> {
        self.present()?;
        self.session.lock().check_queue(queue)?;
        self.existing_group(self.ops.queue_group(queue))
    }

    /// The group whose address space the rings of a queue are in, if it may differ from that of the
    /// buffers.
    ///
    /// # Errors
    /// As for [`queue_group`](Self::queue_group).
    pub fn descriptor_group(&self, queue: u16) -> Result<Option<u16>, OpError> {
        self.present()?;
        self.session.lock().check_queue(queue)?;
        self.ops
            .descriptor_group(queue)
            .map(|group| self.existing_group(group))
            .transpose()
    }

    fn existing_group(&self, group: u16) -> Result<u16, OpError> {
        if group < self.group_count() {
            Ok(group)
        } else {
            Err(OpError::Broken)
        }
    }
}

impl Claim<VdpaDevice> {
    /// Puts a group of queues into an address space, until the next reset. Possible before the
    /// device starts.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such group or address space; [`OpError::WrongState`]
    /// from `DRIVER_OK` on; whatever the device answers.
    pub async fn set_group_space(&self, group: u16, space: u16) -> Result<(), OpError> {
        let _turn = self.turn.lock().await;
        self.usable()?;
        if group >= self.group_count() || space >= self.space_count() {
            return Err(OpError::OutOfRange);
        }
        {
            let mut session = self.session_in_use()?;
            session.check_group_move()?;
            session.touch();
        }
        self.in_time(self.ops.set_group_address_space(group, space))
            .await
    }
}
