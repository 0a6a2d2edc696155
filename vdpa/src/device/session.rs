//! What a consumer has done with a device since its last reset, and what it may do next.
//!
//! Source: VIRTIO 1.2, 2.1 (status), 2.2 (features), 3.1.1 (initialisation).

use alloc::vec;
use alloc::vec::Vec;

use virtio::DeviceStatus;

use crate::Features;
use crate::ops::OpError;

/// The bits that a driver sets. `DEVICE_NEEDS_RESET` is the device's.
const DRIVERS_BITS: DeviceStatus = DeviceStatus::ACKNOWLEDGE
    .union(DeviceStatus::DRIVER)
    .union(DeviceStatus::FEATURES_OK)
    .union(DeviceStatus::DRIVER_OK)
    .union(DeviceStatus::FAILED);

/// The state of a device between two resets.
#[derive(Debug)]
pub(super) struct Session {
    status: DeviceStatus,
    features: Features,
    queues: Vec<QueueSetup>,
    /// Something has been written to the device.
    touched: bool,
    /// The device did not come out of a reset; what it does now is unknown.
    lost: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct QueueSetup {
    size: Option<u16>,
    has_address: bool,
    /// The device may be using the queue.
    ready: bool,
}

impl Session {
    pub(super) fn new(queues: u16) -> Self {
        Self {
            status: DeviceStatus::empty(),
            features: Features::EMPTY,
            queues: vec![QueueSetup::default(); usize::from(queues)],
            touched: false,
            lost: false,
        }
    }

    /// Starts again after a reset, and returns the queues that were ready.
    pub(super) fn restart(&mut self) -> Vec<u16> {
        let ready = self.ready_queues();
        self.queues.fill(QueueSetup::default());
        self.status = DeviceStatus::empty();
        self.features = Features::EMPTY;
        self.touched = false;
        self.lost = false;
        ready
    }

    /// Only a reset can help now.
    pub(super) fn lose(&mut self) {
        self.touched = true;
        self.lost = true;
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Gives up the queues that a lost device may be using, and returns how many they are.
    pub(super) fn abandon_queues(&mut self) -> u64 {
        let mut abandoned = 0;
        for queue in self.queues.iter_mut().filter(|queue| queue.ready) {
            queue.ready = false;
            abandoned += 1;
        }
        abandoned
    }

    /// The device is about to be written to.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }

    /// Whether the device is as a reset has left it.
    pub(super) fn is_fresh(&self) -> bool {
        !self.touched
    }

    pub(super) fn status(&self) -> DeviceStatus {
        self.status
    }

    pub(super) fn set_status(&mut self, status: DeviceStatus) {
        self.status = status;
    }

    pub(super) fn set_features(&mut self, features: Features) {
        self.features = features;
    }

    /// The queues that the device may be using.
    pub(super) fn ready_queues(&self) -> Vec<u16> {
        (0..)
            .zip(&self.queues)
            .filter(|(_, queue)| queue.ready)
            .map(|(index, _)| index)
            .collect()
    }

    pub(super) fn check_features(
        &self,
        offered: Features,
        wanted: Features,
    ) -> Result<(), OpError> {
        if self.lost || self.status.contains(DeviceStatus::FEATURES_OK) {
            return Err(OpError::WrongState);
        }
        if offered.contains(wanted) {
            Ok(())
        } else {
            Err(OpError::Invalid)
        }
    }

    pub(super) fn check_status(&self, status: DeviceStatus) -> Result<(), OpError> {
        if !status.contains(self.status) || !DRIVERS_BITS.contains(status) || status.is_empty() {
            return Err(OpError::Invalid);
        }
        let skips_features = status.contains(DeviceStatus::DRIVER_OK)
            && !self.status.contains(DeviceStatus::FEATURES_OK);
        if self.lost || skips_features {
            Err(OpError::WrongState)
        } else {
            Ok(())
        }
    }

    /// Whether the queue exists.
    pub(super) fn check_queue(&self, queue: u16) -> Result<(), OpError> {
        if usize::from(queue) < self.queues.len() {
            Ok(())
        } else {
            Err(OpError::OutOfRange)
        }
    }

    /// Whether the queue may be set up now: between `FEATURES_OK` and `DRIVER_OK`, and not ready.
    pub(super) fn check_set_up(&self, queue: u16) -> Result<(), OpError> {
        let setup = self
            .queues
            .get(usize::from(queue))
            .ok_or(OpError::OutOfRange)?;
        let time = self.status.contains(DeviceStatus::FEATURES_OK)
            && !self
                .status
                .intersects(DeviceStatus::DRIVER_OK.union(DeviceStatus::FAILED));
        if time && !setup.ready && !self.lost {
            Ok(())
        } else {
            Err(OpError::WrongState)
        }
    }

    /// Whether a queue can have this size (VIRTIO 1.2, 2.7: a split queue's is a power of two).
    pub(super) fn check_size(&self, size: u16, smallest: u16, largest: u16) -> Result<(), OpError> {
        let packed = self.features.contains(virtio::F::RING_PACKED);
        let shape = size.is_power_of_two() || (packed && size > 0);
        if shape && (smallest..=largest).contains(&size) {
            Ok(())
        } else {
            Err(OpError::Invalid)
        }
    }

    /// Whether the queue may be made ready now: set up completely.
    pub(super) fn check_start(&self, queue: u16) -> Result<(), OpError> {
        self.check_set_up(queue)?;
        let setup = self
            .queues
            .get(usize::from(queue))
            .ok_or(OpError::OutOfRange)?;
        if setup.size.is_some() && setup.has_address {
            Ok(())
        } else {
            Err(OpError::WrongState)
        }
    }

    pub(super) fn set_size(&mut self, queue: u16, size: u16) {
        self.edit(queue, |setup| setup.size = Some(size));
    }

    pub(super) fn set_has_address(&mut self, queue: u16) {
        self.edit(queue, |setup| setup.has_address = true);
    }

    pub(super) fn set_ready(&mut self, queue: u16, ready: bool) {
        self.edit(queue, |setup| setup.ready = ready);
    }

    fn edit(&mut self, queue: u16, change: impl FnOnce(&mut QueueSetup)) {
        if let Some(setup) = self.queues.get_mut(usize::from(queue)) {
            change(setup);
        }
    }
}
