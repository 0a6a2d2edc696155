//! What all simulated devices do alike: the status, the queues' set-up, and one turn of the worker.
//!
//! Everything here happens under the device's lock, which is never held across an await. Callbacks
//! are only collected; the [device](super::device) calls them afterwards.

use alloc::vec::Vec;
use core::time::Duration;

use vdpa::features::ring_features;
use vdpa::ops::{OpError, QueueAddress, QueueState};
use vdpa::platform::Callback;
use vdpa::{Features, Platform};
use virtio::DeviceStatus;
use virtq::device::{Broken, DeviceConfig};
use virtq::{RingAddresses, RingState};

use super::faults::Plan;
use super::model::{Budget, Change, Model, Shape, Turn};
use super::sim_queue::{Shown, SimQueue};
use super::space::Spaces;
use super::{AccessPlatform, SimConfig};

/// What every simulated device offers.
pub(super) fn base_offer() -> Features {
    (virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM).into()
}

/// What a driver must accept.
pub(super) fn required(access_platform: AccessPlatform) -> Features {
    match access_platform {
        AccessPlatform::Required => base_offer(),
        AccessPlatform::Optional => virtio::F::VERSION_1.into(),
    }
}

/// What the rings of every simulated device can do.
pub(super) fn ring_offer() -> Features {
    Features::from(virtio::F::INDIRECT_DESC | virtio::F::EVENT_IDX)
        | (virtio::F::RING_PACKED | virtio::F::IN_ORDER).into()
}

/// The state of a device.
pub(super) struct Engine<M> {
    pub(super) model: M,
    shape: Shape,
    /// The largest size of a queue.
    queue_size: u16,
    /// The features that the driver must accept.
    required: Features,
    pub(super) features: Features,
    pub(super) status: DeviceStatus,
    motion: Motion,
    pub(super) setups: Vec<Setup>,
    /// The queues that are ready.
    ports: Vec<Option<SimQueue>>,
    /// The address space of each group.
    groups: Vec<u16>,
    pub(super) config_callback: Option<Callback>,
    pub(super) generation: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Motion {
    Running,
    Suspended,
}

/// What the driver has told the device of a queue.
#[derive(Default)]
pub(super) struct Setup {
    /// How many entries it has; 0 if the driver has not said.
    pub(super) size: u16,
    pub(super) address: Option<QueueAddress>,
    /// Where it starts, or where it stood when it was stopped.
    pub(super) state: Option<RingState>,
    pub(super) callback: Option<Callback>,
    /// Accesses to memory that was not mapped. Kept over a reset.
    dma_faults: u64,
}

/// What the worker does after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Waits for the bell.
    Wait,
    /// Lets others go first.
    Yield,
    /// Waits for the bell, but not beyond this time.
    WaitUntil(Duration),
}

impl<M: Model> Engine<M> {
    pub(super) fn new(model: M, config: &SimConfig) -> Self {
        let shape = model.shape();
        let queues = usize::from(shape.queues);
        Self {
            model,
            shape,
            queue_size: config.queue_size,
            required: required(config.access_platform),
            features: Features::EMPTY,
            status: DeviceStatus::empty(),
            motion: Motion::Running,
            setups: (0..queues).map(|_| Setup::default()).collect(),
            ports: (0..queues).map(|_| None).collect(),
            groups: (0..shape.groups).map(|_| 0).collect(),
            config_callback: None,
            generation: 0,
        }
    }

    /// Serves the queues for a while, and collects what is to be called afterwards.
    pub(super) fn turn(
        &mut self,
        platform: &dyn Platform,
        faults: &Plan,
        signals: &mut Vec<Callback>,
    ) -> Next {
        if !self.is_running() {
            return Next::Wait;
        }
        let turn = self.model.serve(&mut self.ports, &mut Budget::new());
        let spurious = faults.takes_interrupt();
        let mut broken = None;
        let mut due: Option<Duration> = None;
        for (setup, port) in self.setups.iter_mut().zip(&mut self.ports) {
            let Some(port) = port else { continue };
            let shown = port.show(|| platform.now());
            if let Shown::Later(time) = shown {
                due = Some(due.map_or(time, |due| due.min(time)));
            }
            if spurious || matches!(shown, Shown::Interrupt) {
                signals.extend(setup.callback.clone());
            }
            setup.dma_faults += port.take_dma_faults();
            if let Some(how) = port.broken() {
                setup.dma_faults += u64::from(is_dma_fault(how));
                broken = Some(how);
            }
        }
        match (broken, turn, due) {
            (Some(broken), ..) => {
                self.ask_for_reset(broken, signals);
                Next::Wait
            }
            (None, Turn::More, _) => Next::Yield,
            (None, Turn::Idle, Some(due)) => Next::WaitUntil(due),
            (None, Turn::Idle, None) => Next::Wait,
        }
    }

    /// Drops what the queues know of memory that was withdrawn.
    pub(super) fn refresh(&mut self) {
        for port in self.ports.iter_mut().flatten() {
            port.refresh();
        }
    }

    /// The features as the driver writes them.
    pub(super) fn set_features(&mut self, features: Features) -> Result<(), OpError> {
        if !features.contains(self.required) || !self.model.accepts(features) {
            return Err(OpError::FeaturesRefused);
        }
        self.features = features;
        Ok(())
    }

    /// The status as the driver writes it.
    pub(super) fn set_status(&mut self, status: DeviceStatus) {
        let started = (status - self.status).contains(DeviceStatus::DRIVER_OK);
        self.status = status | (self.status & DeviceStatus::DEVICE_NEEDS_RESET);
        // VIRTIO 1.2, 2.2.2: a device that does not accept the features does not keep the bit.
        if !self.features.contains(self.required) {
            self.status.remove(DeviceStatus::FEATURES_OK);
        }
        if started {
            self.model.start(self.features);
        }
    }

    /// Forgets everything that the driver has told the device.
    pub(super) fn reset(&mut self) {
        self.status = DeviceStatus::empty();
        self.features = Features::EMPTY;
        self.motion = Motion::Running;
        self.config_callback = None;
        self.ports.fill_with(|| None);
        self.groups.fill(0);
        for setup in &mut self.setups {
            *setup = Setup {
                dma_faults: setup.dma_faults,
                ..Setup::default()
            };
        }
        self.model.reset();
    }

    /// Comes to rest: what was completed is shown, and no queue is looked at any more.
    pub(super) fn suspend(&mut self, signals: &mut Vec<Callback>) {
        self.motion = Motion::Suspended;
        for (setup, port) in self.setups.iter().zip(&mut self.ports) {
            let Some(port) = port else { continue };
            if let Shown::Interrupt = port.flush() {
                signals.extend(setup.callback.clone());
            }
        }
    }

    pub(super) fn resume(&mut self) {
        self.motion = Motion::Running;
    }

    /// Starts a queue where it is set up to start.
    pub(super) fn open(
        &mut self,
        queue: u16,
        spaces: &Spaces,
        faults: &Plan,
    ) -> Result<(), OpError> {
        let size = self.queue_size(queue);
        let setup = &self.setups[usize::from(queue)];
        let address = setup.address.ok_or(OpError::WrongState)?;
        let features = ring_features(self.features);
        let limits = self.model.limits(queue, size, self.features);
        let config = DeviceConfig {
            size,
            features,
            addresses: RingAddresses {
                descriptor: address.descriptor,
                driver: address.driver,
                device: address.device,
            },
            state: setup.state.unwrap_or(RingState::start(features)),
            chain_max: limits.segments,
            in_flight_max: limits.in_flight,
        };
        let group = self.group(queue);
        let space = self.groups.get(usize::from(group));
        let space = spaces.get(*space.ok_or(OpError::OutOfRange)?)?;
        let port = SimQueue::new(&config, space, spaces.log(), faults);
        let port = port.map_err(|_| OpError::Invalid)?;
        self.ports[usize::from(queue)] = Some(port);
        Ok(())
    }

    /// Stops a queue, which keeps where it stands.
    pub(super) fn close(&mut self, queue: u16, signals: &mut Vec<Callback>) {
        let setup = &mut self.setups[usize::from(queue)];
        let Some(mut port) = self.ports[usize::from(queue)].take() else {
            return;
        };
        if let Shown::Interrupt = port.flush() {
            signals.extend(setup.callback.clone());
        }
        setup.state = port.state();
        setup.dma_faults += port.take_dma_faults();
    }

    /// Changes the set-up of a queue. One that is in use, in a suspended device, goes on with the
    /// new one.
    pub(super) fn set_up(
        &mut self,
        queue: u16,
        spaces: &Spaces,
        faults: &Plan,
        change: impl FnOnce(&mut Setup),
    ) -> Result<(), OpError> {
        let in_use = self.is_ready(queue);
        let setup = &mut self.setups[usize::from(queue)];
        if let Some(port) = &self.ports[usize::from(queue)] {
            setup.state = port.state();
        }
        change(setup);
        if in_use {
            self.open(queue, spaces, faults)?;
        }
        Ok(())
    }

    /// Puts a group into another address space; its queues go on there.
    pub(super) fn move_group(
        &mut self,
        group: u16,
        space: u16,
        spaces: &Spaces,
        faults: &Plan,
    ) -> Result<(), OpError> {
        let place = self.groups.get_mut(usize::from(group));
        *place.ok_or(OpError::OutOfRange)? = space;
        let queues = (0..self.shape.queues).filter(|queue| self.group(*queue) == group);
        for queue in queues.collect::<Vec<_>>() {
            self.set_up(queue, spaces, faults, |_| ())?;
        }
        Ok(())
    }

    /// Where a queue stands: while the device is suspended, or when it was stopped.
    pub(super) fn queue_state(&self, queue: u16) -> Result<QueueState, OpError> {
        let index = usize::from(queue);
        let state = match &self.ports[index] {
            Some(port) => port.state().ok_or(OpError::WrongState)?,
            None => {
                let start = RingState::start(ring_features(self.features));
                self.setups[index].state.unwrap_or(start)
            }
        };
        Ok(state.into())
    }

    pub(super) fn is_ready(&self, queue: u16) -> bool {
        self.ports[usize::from(queue)].is_some()
    }

    /// The size of a queue in entries, as the driver has set it.
    fn queue_size(&self, queue: u16) -> u16 {
        match self.setups[usize::from(queue)].size {
            0 => self.queue_size,
            size => size,
        }
    }

    /// The group of a queue; it may depend on the features.
    pub(super) fn group(&self, queue: u16) -> u16 {
        self.model.group(queue, self.features)
    }

    /// How often a queue has met memory that was not mapped, or not so.
    pub(super) fn dma_faults(&self, queue: u16) -> u64 {
        self.setups[usize::from(queue)].dma_faults
    }

    /// Changes the model, and tells the driver if its configuration space is another one now.
    pub(super) fn change(
        &mut self,
        change: impl FnOnce(&mut M) -> Change,
        signals: &mut Vec<Callback>,
    ) {
        if change(&mut self.model) == Change::Configuration {
            self.generation = self.generation.wrapping_add(1);
            self.signal_config(signals);
        }
    }

    fn is_running(&self) -> bool {
        self.status.contains(DeviceStatus::DRIVER_OK)
            && !self.status.contains(DeviceStatus::DEVICE_NEEDS_RESET)
            && self.motion == Motion::Running
    }

    /// VIRTIO 1.2, 2.1.2: a device that cannot go on says so, by a configuration change
    /// notification.
    #[cold]
    fn ask_for_reset(&mut self, broken: Broken, signals: &mut Vec<Callback>) {
        log::warn!("{}: the driver broke a queue: {broken}", self.shape.name);
        self.status |= DeviceStatus::DEVICE_NEEDS_RESET;
        self.signal_config(signals);
    }

    fn signal_config(&self, signals: &mut Vec<Callback>) {
        if self.status.contains(DeviceStatus::DRIVER_OK) {
            signals.extend(self.config_callback.clone());
        }
    }
}

/// Whether a queue was broken by an access to memory that is not mapped.
fn is_dma_fault(broken: Broken) -> bool {
    matches!(broken, Broken::RingFault(_) | Broken::IndirectFault(_))
}
