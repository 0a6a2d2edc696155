//! What a device is and how far its driver has come. Everything here happens under the device's
//! lock; callbacks are only collected.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use vdpa::Features;
use vdpa::features::ring_features;
use vdpa::ops::{OpError, QueueAddress, QueueState};
use vdpa::platform::Callback;
use virtio::DeviceStatus;
use virtq::device::{Broken, DeviceConfig};
use virtq::{RingAddresses, RingState};

use super::error::TaskError;
use super::mailbox::Mailbox;
use super::signals::Signals;
use super::spaces::Spaces;
use super::vduse_queue::{Job, VduseQueue};

/// Whether the device serves its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Motion {
    Running,
    /// The task gets nothing new, and may answer what it has.
    Suspending,
    Suspended,
}

/// The state of a device.
pub(super) struct State {
    /// Whether its task has not answered in time, or has lied. For good.
    pub(super) broken: bool,
    pub(super) attached: bool,
    pub(super) opened: bool,
    /// The device is destroyed as soon as those who look for it have gone.
    pub(super) retired: bool,
    /// When the latest task has gone, and whether somebody waits for the next one.
    pub(super) closed_at: Duration,
    pub(super) watched: bool,
    /// Grows with each reset.
    pub(super) resets: u64,
    pub(super) mailbox: Mailbox,
    pub(super) config: Vec<u8>,
    pub(super) generation: u32,
    /// Whether the configuration has changed while the driver could not be told.
    pub(super) config_changed: bool,
    pub(super) config_callback: Option<Callback>,
    pub(super) features: Features,
    pub(super) status: DeviceStatus,
    pub(super) motion: Motion,
    pub(super) virtqueues: Vec<Virtqueue>,
    /// The address space of each group.
    pub(super) groups: Vec<u16>,
    in_flight: u16,
    serial: u64,
    /// Whether the task has been told a status since the last reset.
    pub(super) told: bool,
    /// How often the task has done what makes no sense.
    pub(super) violations: u64,
}

/// What is known of a queue.
#[derive(Default)]
pub(super) struct Virtqueue {
    /// As the task has said: 0, if it has not.
    pub(super) size_max: u16,
    pub(super) group: u16,
    /// As the driver has said: 0, if it has not.
    pub(super) size: u16,
    pub(super) address: Option<QueueAddress>,
    /// Where it starts, or where it stood when it was stopped.
    pub(super) state: Option<RingState>,
    pub(super) callback: Option<Callback>,
    pub(super) active: Option<VduseQueue>,
    /// Whether the task knows where it stands: it has been in use.
    pub(super) has_run: bool,
    /// Of the times when it was in use before.
    counted: (u64, u64),
}

impl State {
    pub(super) fn new(queues: u16, groups: u16, in_flight: u16, config: Vec<u8>) -> Self {
        Self {
            broken: false,
            attached: false,
            opened: false,
            retired: false,
            closed_at: Duration::ZERO,
            watched: false,
            resets: 0,
            mailbox: Mailbox::default(),
            config,
            generation: 0,
            config_changed: false,
            config_callback: None,
            features: Features::EMPTY,
            status: DeviceStatus::empty(),
            motion: Motion::Running,
            virtqueues: (0..queues).map(|_| Virtqueue::default()).collect(),
            groups: vec![0; usize::from(groups)],
            in_flight,
            serial: 0,
            told: false,
            violations: 0,
        }
    }

    /// Whether the driver has started the device and it can serve, suspended or not.
    pub(super) fn is_started(&self) -> bool {
        let ok = self.status.contains(DeviceStatus::DRIVER_OK);
        ok && !self.status.contains(DeviceStatus::DEVICE_NEEDS_RESET) && !self.broken
    }

    /// Whether the task may do anything at all.
    #[inline]
    pub(super) fn check_whole(&self) -> Result<(), TaskError> {
        if self.broken {
            Err(TaskError::Broken)
        } else {
            Ok(())
        }
    }

    /// Counts what the task has done wrong.
    #[inline]
    pub(super) fn count<T>(&mut self, result: Result<T, TaskError>) -> Result<T, TaskError> {
        self.violations += u64::from(result.is_err());
        result
    }

    /// Whether the driver may be interrupted.
    pub(super) fn check_interrupts(&self) -> Result<(), TaskError> {
        let running = self.is_started() && self.motion != Motion::Suspended;
        running.then_some(()).ok_or(TaskError::NotRunning)
    }

    /// Forgets everything that a driver has told the device. What the task has said stays.
    pub(super) fn reset(&mut self) {
        self.resets += 1;
        self.status = DeviceStatus::empty();
        self.features = Features::EMPTY;
        self.motion = Motion::Running;
        self.config_callback = None;
        self.config_changed = false;
        self.groups.fill(0);
        for virtqueue in &mut self.virtqueues {
            virtqueue.retire();
            *virtqueue = Virtqueue {
                size_max: virtqueue.size_max,
                group: virtqueue.group,
                counted: virtqueue.counted,
                ..Virtqueue::default()
            };
        }
    }

    /// The device cannot be relied on any more; its driver is told (VIRTIO 1.2, 2.1.2).
    pub(super) fn break_down(&mut self, signals: &mut Signals) {
        if !self.broken {
            self.need_reset(signals);
            self.broken = true;
        }
    }

    fn need_reset(&mut self, signals: &mut Signals) {
        let started = self.status.contains(DeviceStatus::DRIVER_OK);
        if !self.status.is_empty() {
            self.status |= DeviceStatus::DEVICE_NEEDS_RESET;
        }
        if started {
            signals.add(self.config_callback.as_ref());
        }
    }

    /// The queue as the driver has set it up goes into use.
    pub(super) fn open(&mut self, queue: u16, spaces: &Spaces) -> Result<(), OpError> {
        let virtqueue = &self.virtqueues[usize::from(queue)];
        let address = virtqueue.address.ok_or(OpError::WrongState)?;
        let features = ring_features(self.features);
        let size = if virtqueue.size == 0 {
            virtqueue.size_max
        } else {
            virtqueue.size
        };
        let config = DeviceConfig {
            size,
            features,
            addresses: RingAddresses {
                descriptor: address.descriptor,
                driver: address.driver,
                device: address.device,
            },
            state: virtqueue.state.unwrap_or(RingState::start(features)),
            // A driver with indirect tables keeps to the largest size (VIRTIO 1.2, 5.2.6.1).
            chain_max: virtqueue.size_max,
            in_flight_max: self.in_flight.min(size),
        };
        let space = self.groups.get(usize::from(virtqueue.group));
        let space = spaces.get(*space.ok_or(OpError::OutOfRange)?)?;
        let active = VduseQueue::new(queue, &config, space).map_err(|_| OpError::Invalid)?;
        let virtqueue = &mut self.virtqueues[usize::from(queue)];
        virtqueue.retire();
        virtqueue.active = Some(active);
        Ok(())
    }

    /// The queue goes out of use, and keeps where it stands. False, if requests are with the task
    /// that cannot be put back.
    pub(super) fn close(&mut self, queue: u16, signals: &mut Signals) -> bool {
        let virtqueue = &mut self.virtqueues[usize::from(queue)];
        if !virtqueue.come_to_rest(signals) {
            return false;
        }
        if let Some(active) = &virtqueue.active {
            virtqueue.state = active.state();
        }
        virtqueue.retire();
        true
    }

    /// Changes what the driver has said of a queue. One that is in use, in a suspended device, goes
    /// on with it.
    pub(super) fn set_up(
        &mut self,
        queue: u16,
        spaces: &Spaces,
        change: impl FnOnce(&mut Virtqueue),
    ) -> Result<(), OpError> {
        let virtqueue = &mut self.virtqueues[usize::from(queue)];
        let in_use = virtqueue.active.is_some();
        if let Some(active) = &virtqueue.active {
            virtqueue.state = Some(active.state().ok_or(OpError::WrongState)?);
        }
        change(virtqueue);
        if in_use {
            self.open(queue, spaces)?;
        }
        Ok(())
    }

    /// Where a queue stands, if nothing is under way.
    pub(super) fn queue_state(&self, queue: u16) -> Option<QueueState> {
        let virtqueue = &self.virtqueues[usize::from(queue)];
        let state = match &virtqueue.active {
            Some(active) => active.state()?,
            None => virtqueue
                .state
                .unwrap_or(RingState::start(ring_features(self.features))),
        };
        Some(state.into())
    }

    /// The next request of a queue for the task.
    pub(super) fn take(
        &mut self,
        queue: u16,
        signals: &mut Signals,
    ) -> Result<Option<Job>, TaskError> {
        let runs = self.is_started() && self.motion == Motion::Running;
        let virtqueue = self.virtqueues.get_mut(usize::from(queue));
        let virtqueue = virtqueue.ok_or(TaskError::OutOfRange)?;
        let Some(active) = virtqueue.active.as_mut().filter(|_| runs) else {
            return Ok(None);
        };
        let job = active.take(&mut self.serial);
        virtqueue.has_run |= job.is_some();
        self.look(queue, signals);
        Ok(job)
    }

    /// The queue of a request, if the task may do something with it.
    pub(super) fn active(&mut self, queue: u16) -> Result<&mut VduseQueue, TaskError> {
        self.check_interrupts()?;
        let virtqueue = self.virtqueues.get_mut(usize::from(queue));
        let virtqueue = virtqueue.ok_or(TaskError::OutOfRange)?;
        virtqueue.active.as_mut().ok_or(TaskError::NotReady)
    }

    /// Shows the driver what was completed in a queue. In one that is at rest everything has been.
    pub(super) fn flush(&mut self, queue: u16, signals: &mut Signals) -> Result<(), TaskError> {
        match self.active(queue) {
            Ok(active) => {
                if active.flush() {
                    signals.add(self.virtqueues[usize::from(queue)].callback.as_ref());
                }
            }
            Err(TaskError::NotRunning | TaskError::NotReady) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.look(queue, signals);
        Ok(())
    }

    /// Whether the driver has broken the queue: then it must reset the device.
    fn look(&mut self, queue: u16, signals: &mut Signals) {
        let active = &self.virtqueues[usize::from(queue)].active;
        if let Some(broken) = active.as_ref().and_then(VduseQueue::broken)
            && !self.status.contains(DeviceStatus::DEVICE_NEEDS_RESET)
        {
            log_broken(broken);
            self.need_reset(signals);
        }
    }

    /// Every queue comes to rest. False, if one cannot.
    pub(super) fn come_to_rest(&mut self, signals: &mut Signals) -> bool {
        let mut virtqueues = self.virtqueues.iter_mut();
        virtqueues.all(|virtqueue| virtqueue.come_to_rest(signals))
    }
}

#[cold]
fn log_broken(broken: Broken) {
    log::warn!("vduse: the driver broke a queue: {broken}");
}

impl Virtqueue {
    /// What the task has answered is shown, and what it has not is put back.
    fn come_to_rest(&mut self, signals: &mut Signals) -> bool {
        let Some(active) = &mut self.active else {
            return true;
        };
        if active.flush() {
            signals.add(self.callback.as_ref());
        }
        active.put_back() && active.state().is_some()
    }

    fn retire(&mut self) {
        if let Some(active) = self.active.take() {
            let (requests, faults) = active.counters();
            self.counted = (self.counted.0 + requests, self.counted.1 + faults);
        }
    }

    /// Requests taken from the driver, and accesses to memory that is not mapped.
    pub(super) fn counters(&self) -> (u64, u64) {
        let (requests, faults) = self.active.as_ref().map_or((0, 0), VduseQueue::counters);
        (self.counted.0 + requests, self.counted.1 + faults)
    }
}
