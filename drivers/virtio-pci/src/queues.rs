//! Starting and stopping single queues, and where they stand meanwhile.
//!
//! A plain function forgets where a queue stood, and stops one alone only with `RING_RESET`;
//! nothing here pretends otherwise. One with [`StateRegisters`] tells it.
//!
//! Source: VIRTIO 1.2, 2.6.1 and 4.1.5.1.3.

use alloc::boxed::Box;
use alloc::vec::Vec;

use vdpa::VdpaOps;
use vdpa::ops::{OpError, QueueState as RingPlace};
use vdpa::platform::BoxFuture;
use virtio::DeviceStatus;
use virtq::{RingFeatures, RingState};

use super::common::NO_VECTOR;
use super::deadline::{Answer, DEADLINE, wait};
use super::parent::Parent;
use super::queue_state::{Phase, Position, QueueState};
use super::states::StateRegisters;

/// What the status of a device has that has been started.
const RUNS: DeviceStatus = DeviceStatus::DRIVER_OK.union(DeviceStatus::SUSPEND);

impl Parent {
    /// Lets the device use a queue: at once if it runs, and with `DRIVER_OK` otherwise, because the
    /// vectors that come before are shared out among all queues.
    pub(super) fn start_queue(&self, index: u16) -> Result<(), OpError> {
        // Without an address the device would take its rings from the start of memory.
        if !self.edit(index, |queue| {
            queue.size.is_some() && queue.address.is_some()
        }) {
            return Err(OpError::WrongState);
        }
        if self.raw_status()?.intersects(RUNS) {
            return self.enable_queue(index);
        }
        self.edit(index, |queue| queue.phase = Phase::Due);
        Ok(())
    }

    /// Tells the device everything about a queue, and enables it last (VIRTIO 1.2, 4.1.4.3.2).
    pub(super) fn enable_queue(&self, index: u16) -> Result<(), OpError> {
        let common = self.virtio.common();
        let mut state = self.state.lock();
        if let Some(interrupts) = &state.interrupts {
            interrupts.tell_queue(common, index)?;
        }
        if let Some(states) = &self.states {
            let running = |(at, queue): (u16, &QueueState)| {
                (at == index || matches!(queue.phase, Phase::Running | Phase::Halted)).then_some(at)
            };
            let running: Vec<_> = (0..).zip(&state.queues).filter_map(running).collect();
            states.announce(&running, state.driver_features);
            let queue = state.queues.get(usize::from(index));
            let position = match queue.map(|queue| queue.position) {
                Some(Position::Start) => 0,
                Some(Position::At(position)) => position,
                Some(Position::Unknown) | None => return Err(OpError::Broken),
            };
            states.set_position(index, position)?;
        }
        let known = state.queues.get_mut(usize::from(index));
        let known = known.ok_or(OpError::OutOfRange)?;
        let (Some(size), Some(address)) = (known.size, known.address) else {
            return Err(OpError::WrongState);
        };
        known.phase = Phase::Running;
        known.position = Position::Unknown;
        drop(state);
        let queue = common.queue(index);
        // Having been stopped alone may have taken these back.
        if queue.set_size(size) != size {
            return Err(OpError::Invalid);
        }
        queue.set_address(address);
        queue.enable();
        drop(queue);
        let enabled = self.is_enabled(index)?;
        enabled.then_some(()).ok_or(OpError::Broken)
    }

    pub(super) async fn stop_queue(&self, index: u16) -> Result<(), OpError> {
        if self.is_enabled(index)? || self.edit(index, |queue| queue.is_stopping()) {
            if self.platform.now() < self.state.lock().gave_up_until {
                return Err(OpError::Timeout);
            }
            let stopped = match &self.states {
                Some(states) => self.halt_queue(index, &**states).await,
                None => self.reset_queue(index).await,
            };
            if stopped == Err(OpError::Timeout) {
                self.state.lock().gave_up_until = self.platform.now() + DEADLINE;
            }
            stopped?;
        }
        self.edit(index, |queue| queue.phase = Phase::Down);
        Ok(())
    }

    /// Stops a queue that has been started, and remembers where it goes on. One that has not
    /// stopped in time may be asked again.
    pub(super) fn halt_queue<'a>(
        &'a self,
        index: u16,
        states: &'a dyn StateRegisters,
    ) -> BoxFuture<'a, Result<(), OpError>> {
        Box::pin(async move {
            self.wait(&|| states.is_drained(index).then_some(Ok(())))
                .await?;
            self.edit(index, |queue| queue.phase = Phase::Halted);
            let common = self.virtio.common();
            common.queue(index).disable();
            self.wait(&|| match self.is_enabled(index) {
                Ok(true) => None,
                stopped => Some(stopped.map(drop)),
            })
            .await?;
            // Not earlier: nobody would be told of what it has used on its way.
            common.queue(index).set_vector(NO_VECTOR);
            let size = self.edit(index, |queue| queue.size);
            let size = size.unwrap_or_else(|| self.queue_size_max(index));
            let position = states.position(index, size);
            // The last words may have been those of a device that is there no more.
            self.raw_status()?;
            let position = Position::At(position?);
            self.edit(index, |queue| queue.position = position);
            Ok(())
        })
    }

    /// Resets one queue (VIRTIO 1.2, 2.6.1 and 4.1.5.1.3.1).
    async fn reset_queue(&self, index: u16) -> Result<(), OpError> {
        // Writing 0 to `queue_enable` is forbidden (VIRTIO 1.2, 4.1.4.3.2).
        if !self.driver_features().contains(virtio::F::RING_RESET) {
            return Err(OpError::Unsupported);
        }
        let common = self.virtio.common();
        common.queue(index).reset();
        self.wait(&|| match common.queue(index).resetting() {
            0 => Some(Ok(())),
            u16::MAX => Some(Err(OpError::Gone)),
            _ => None,
        })
        .await
    }

    /// What the register says: whether the device uses the queue. Of a device that nobody drives no
    /// queue can be selected (VIRTIO 1.2, 3.1.1).
    pub(super) fn is_enabled(&self, index: u16) -> Result<bool, OpError> {
        if !self.raw_status()?.contains(DeviceStatus::DRIVER) {
            return Ok(false);
        }
        match self.virtio.common().queue(index).enabled() {
            0 => Ok(false),
            1 => Ok(true),
            u16::MAX => Err(OpError::Gone),
            _ => Err(OpError::Broken),
        }
    }

    /// Whether it has been started, even if the device is suspended now.
    pub(super) fn is_ready(&self, index: u16) -> Result<bool, OpError> {
        let enabled = self.is_enabled(index)?;
        let phase = self.edit(index, |queue| queue.phase);
        Ok(enabled || matches!(phase, Phase::Due | Phase::Halted))
    }

    pub(super) fn set_position(&self, index: u16, state: RingPlace) -> Result<(), OpError> {
        if self.is_enabled(index)? {
            return Err(OpError::Unsupported);
        }
        let position = match (state, &self.states) {
            (RingPlace::Split { avail_index }, Some(_)) => Position::At(avail_index),
            _ if state == self.start() => Position::Start,
            _ => return Err(OpError::Unsupported),
        };
        self.edit(index, |queue| queue.position = position);
        Ok(())
    }

    pub(super) fn position(&self, index: u16) -> Result<RingPlace, OpError> {
        match (self.edit(index, |queue| queue.position), &self.states) {
            (Position::Start, _) => Ok(self.start()),
            (Position::At(avail_index), _) => Ok(RingPlace::Split { avail_index }),
            (Position::Unknown, None) => Err(OpError::Unsupported),
            (Position::Unknown, Some(_)) => Err(OpError::Broken),
        }
    }

    /// Where a queue starts that is new.
    fn start(&self) -> RingPlace {
        let features =
            RingFeatures::NONE.with_packed(self.driver_features().contains(virtio::F::RING_PACKED));
        RingState::start(features).into()
    }

    pub(super) async fn wait(&self, answer: &Answer<'_>) -> Result<(), OpError> {
        wait(&*self.platform, answer).await
    }

    /// Looks at what is known of a queue, or changes it. A queue that does not exist is a new one.
    pub(super) fn edit<T>(&self, index: u16, change: impl FnOnce(&mut QueueState) -> T) -> T {
        let mut state = self.state.lock();
        match state.queues.get_mut(usize::from(index)) {
            Some(queue) => change(queue),
            None => change(&mut QueueState::default()),
        }
    }
}
