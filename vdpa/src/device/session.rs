//! What a consumer has done with a device since its last reset, and what it may do next.
//!
//! Source: VIRTIO 1.2, 2.1 (status), 2.2 (features), 2.6.1 (reset of one queue), 3.1.1
//! (initialisation).

mod queue;

use alloc::vec;
use alloc::vec::Vec;

use virtio::DeviceStatus;
use virtq::DmaAddr;

use crate::Features;
use crate::ops::{Abilities, OpError, QueueAddress, QueueState};

use self::queue::QueueSetup;

pub(super) use self::queue::Ready;

/// The bits that a driver sets. `DEVICE_NEEDS_RESET` is the device's, and `SUSPEND` has operations
/// of its own.
const DRIVERS_BITS: DeviceStatus = DeviceStatus::ACKNOWLEDGE
    .union(DeviceStatus::DRIVER)
    .union(DeviceStatus::FEATURES_OK)
    .union(DeviceStatus::DRIVER_OK)
    .union(DeviceStatus::FAILED);

/// The state of a device between two resets.
#[derive(Debug)]
pub(super) struct Session {
    abilities: Abilities,
    /// What the device has.
    status: DeviceStatus,
    /// What it has or is about to get.
    asked: DeviceStatus,
    features: Features,
    queues: Vec<QueueSetup>,
    motion: Motion,
    /// Something has been written to the device.
    touched: bool,
    /// The device did not come out of a reset; what it does now is unknown.
    lost: bool,
}

/// Whether a device that has been started goes on with its queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Motion {
    #[default]
    Running,
    Suspended,
    /// On the way from one to the other, or nobody has waited for the end of it.
    Unknown,
}

impl Session {
    pub(super) fn new(queues: u16, abilities: Abilities) -> Self {
        Self {
            abilities,
            status: DeviceStatus::empty(),
            asked: DeviceStatus::empty(),
            features: Features::EMPTY,
            queues: vec![QueueSetup::default(); usize::from(queues)],
            motion: Motion::Running,
            touched: false,
            lost: false,
        }
    }

    /// Starts again after a reset, and returns the queues that were ready.
    pub(super) fn restart(&mut self) -> Vec<u16> {
        let ready = self.ready_queues();
        self.queues.fill(QueueSetup::default());
        self.status = DeviceStatus::empty();
        self.asked = DeviceStatus::empty();
        self.features = Features::EMPTY;
        self.motion = Motion::Running;
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
        for queue in self.queues.iter_mut().filter(|queue| queue.is_ready()) {
            queue.set_ready(Ready::No);
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

    /// The device is about to get this status: what it rules out is ruled out from now on.
    pub(super) fn ask_status(&mut self, status: DeviceStatus) {
        self.touch();
        self.asked |= status;
    }

    pub(super) fn set_status(&mut self, status: DeviceStatus) {
        self.status = status;
        self.asked = status;
    }

    pub(super) fn features(&self) -> Features {
        self.features
    }

    pub(super) fn set_features(&mut self, features: Features) {
        self.features = features;
    }

    pub(super) fn motion(&self) -> Motion {
        self.motion
    }

    pub(super) fn set_motion(&mut self, motion: Motion) {
        self.motion = motion;
    }

    /// The queues that the device may be using.
    pub(super) fn ready_queues(&self) -> Vec<u16> {
        (0..)
            .zip(&self.queues)
            .filter(|(_, queue)| queue.is_ready())
            .map(|(index, _)| index)
            .collect()
    }

    pub(super) fn check_features(
        &self,
        offered: Features,
        wanted: Features,
    ) -> Result<(), OpError> {
        if self.lost || self.asked.contains(DeviceStatus::FEATURES_OK) {
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

    /// Whether groups may change their address spaces now: until the device starts.
    pub(super) fn check_group_move(&self) -> Result<(), OpError> {
        only_if(!self.lost && !self.asked.contains(DeviceStatus::DRIVER_OK))
    }

    /// Whether the device may be suspended or resumed now: once it has been started.
    pub(super) fn check_motion(&self) -> Result<(), OpError> {
        let started = self.status.contains(DeviceStatus::DRIVER_OK);
        only_if(!self.lost && started && !self.asked.contains(DeviceStatus::FAILED))
    }

    /// Whether the device may be told to log what it writes: the format of the rings has been
    /// agreed on.
    pub(super) fn check_log(&self) -> Result<(), OpError> {
        only_if(self.is_usable())
    }

    /// Tells of the parts of the rings that the device has been writing, of one queue or of all:
    /// their addresses and lengths in bytes. There are none while it is suspended.
    ///
    /// A device writes the used ring of a split queue (VIRTIO 1.2, 2.7.8), and the descriptors and
    /// the event suppression of a packed queue (2.8.8, 2.8.10).
    pub(super) fn written(&self, queue: Option<u16>, mut tell: impl FnMut((DmaAddr, u64))) {
        let started = self.asked.contains(DeviceStatus::DRIVER_OK);
        if !started || self.motion == Motion::Suspended {
            return;
        }
        for (index, setup) in (0..).zip(&self.queues) {
            let wanted = setup.is_ready() && queue.is_none_or(|queue| queue == index);
            let (true, Some(size), Some(address)) = (wanted, setup.size(), setup.address()) else {
                continue;
            };
            let size = u64::from(size);
            if self.is_packed() {
                tell((address.descriptor, 16 * size));
                tell((address.device, 4));
            } else {
                tell((address.device, 6 + 8 * size));
            }
        }
    }

    /// Whether the queue exists.
    pub(super) fn check_queue(&self, queue: u16) -> Result<(), OpError> {
        self.queue(queue).map(|_| ())
    }

    /// Whether the queue may be set up now: between `FEATURES_OK` and `DRIVER_OK` or later where
    /// the device can do that, and not ready.
    pub(super) fn check_set_up(&self, queue: u16) -> Result<(), OpError> {
        let setup = self.queue(queue)?;
        let late =
            self.abilities.contains(Abilities::ENABLE_AFTER_DRIVER_OK) || setup.was_stopped_alone();
        let started = self.asked.contains(DeviceStatus::DRIVER_OK);
        only_if(
            self.is_usable()
                && !setup.is_ready()
                && (!started || (late && self.motion == Motion::Running)),
        )
    }

    /// Whether the place and the state of the queue may be changed now: while it may be set up, and
    /// while the device is suspended.
    pub(super) fn check_move(&self, queue: u16) -> Result<(), OpError> {
        let suspended = self.is_usable() && self.motion == Motion::Suspended;
        self.check_set_up(queue)
            .or_else(|error| self.queue(queue).and(suspended.then_some(()).ok_or(error)))
    }

    /// Whether a queue can have this size (VIRTIO 1.2, 2.7: a split queue's is a power of two;
    /// 2.8.10.1: a packed queue's is at most 2^15).
    pub(super) fn check_size(&self, size: u16, smallest: u16, largest: u16) -> Result<(), OpError> {
        let shape = if self.is_packed() {
            (1..=1 << 15).contains(&size)
        } else {
            size.is_power_of_two()
        };
        if shape && (smallest..=largest).contains(&size) {
            Ok(())
        } else {
            Err(OpError::Invalid)
        }
    }

    /// Whether a queue can start there: the state is one of the format that was agreed on, and lies
    /// in the queue.
    pub(super) fn check_state(&self, queue: u16, state: QueueState) -> Result<(), OpError> {
        let fits = match state {
            QueueState::Split { .. } => !self.is_packed(),
            QueueState::Packed { .. } => self.is_packed(),
        };
        if fits && self.queue(queue)?.can_start_at(state) {
            Ok(())
        } else {
            Err(OpError::Invalid)
        }
    }

    /// Whether the state of the queue stands still: the queue is not ready, or the device is
    /// suspended.
    pub(super) fn check_still(&self, queue: u16) -> Result<(), OpError> {
        let still = !self.queue(queue)?.is_ready() || self.motion == Motion::Suspended;
        only_if(!self.lost && still)
    }

    /// Whether the queue may be made ready now: set up completely.
    pub(super) fn check_start(&self, queue: u16) -> Result<(), OpError> {
        self.check_set_up(queue)?;
        self.queue(queue)?.check_complete()
    }

    /// Whether the queue has to be stopped to stand still.
    pub(super) fn check_stop(&self, queue: u16) -> Result<bool, OpError> {
        let ready = self.queue(queue)?.is_ready();
        only_if(!self.lost).map(|()| ready)
    }

    /// The size that the queue has been given.
    pub(super) fn size(&self, queue: u16) -> Result<Option<u16>, OpError> {
        Ok(self.queue(queue)?.size())
    }

    pub(super) fn set_size(&mut self, queue: u16, size: u16) {
        self.edit(queue, |setup| setup.set_size(size));
    }

    pub(super) fn set_address(&mut self, queue: u16, address: QueueAddress) {
        self.edit(queue, |setup| setup.set_address(address));
    }

    pub(super) fn set_state(&mut self, queue: u16, state: QueueState) {
        self.edit(queue, |setup| setup.set_state(state));
    }

    pub(super) fn set_ready(&mut self, queue: u16, ready: Ready) {
        self.edit(queue, |setup| setup.set_ready(ready));
    }

    fn is_packed(&self) -> bool {
        self.features.contains(virtio::F::RING_PACKED)
    }

    /// Whether the features have been agreed on and nobody has given up.
    fn is_usable(&self) -> bool {
        self.status.contains(DeviceStatus::FEATURES_OK)
            && !self.asked.contains(DeviceStatus::FAILED)
            && !self.lost
    }

    fn queue(&self, queue: u16) -> Result<&QueueSetup, OpError> {
        self.queues
            .get(usize::from(queue))
            .ok_or(OpError::OutOfRange)
    }

    fn edit(&mut self, queue: u16, change: impl FnOnce(&mut QueueSetup)) {
        if let Some(setup) = self.queues.get_mut(usize::from(queue)) {
            change(setup);
        }
    }
}

/// What the rules of the present state allow.
fn only_if(allowed: bool) -> Result<(), OpError> {
    allowed.then_some(()).ok_or(OpError::WrongState)
}
