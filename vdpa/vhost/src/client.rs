//! What the shim knows of the client that has a device open.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use vdpa::Features;
use vdpa::device::VdpaClaim;
use vdpa::ops::OpError;
use vdpa::platform::Callback;
use virtio::DeviceStatus;
use virtq::{Doorbell, DoorbellSwitch, Event};

use super::memory::ClientMemory;
use super::worker_channel::WorkerChannel;
use super::{BackendFeatures, OpenOptions, VhostError};

/// One client, from open to close.
pub(super) struct Client {
    pub(super) device: Arc<VdpaClaim>,
    pub(super) options: OpenOptions,
    pub(super) offered: BackendFeatures,
    pub(super) channel: WorkerChannel,
    /// There while the device is open.
    pub(super) memory: Mutex<Option<ClientMemory>>,
    pub(super) hang_up: Arc<Event>,
    hung_up: AtomicBool,
    state: Mutex<State>,
}

/// What the client has set. It is locked while the device is being changed by a plain call, so that
/// nothing is changed after the end.
pub(super) struct State {
    /// The device is not the client's any more.
    over: bool,
    pub(super) has_owner: bool,
    pub(super) backend: BackendFeatures,
    pub(super) features: Features,
    pub(super) status: DeviceStatus,
    pub(super) config_call: Option<Arc<Event>>,
    pub(super) vrings: Vec<Vring>,
}

/// What the client has set for one queue.
#[derive(Default)]
pub(super) struct Vring {
    pub(super) kick: Option<Arc<Event>>,
    pub(super) call: Option<Arc<Event>>,
    pub(super) err: Option<Arc<Event>>,
    pub(super) enabled: bool,
    /// The doorbell that the client has been given. It leads nowhere after the next reset.
    pub(super) doorbell: Option<Arc<DoorbellSwitch>>,
}

impl Client {
    pub(super) fn new(device: &Arc<VdpaClaim>, options: OpenOptions) -> Arc<Self> {
        let vrings = (0..device.queue_count()).map(|_| Vring::default());
        Arc::new(Self {
            device: Arc::clone(device),
            options,
            offered: BackendFeatures::of(device),
            channel: WorkerChannel::default(),
            memory: Mutex::new(None),
            hang_up: Arc::default(),
            hung_up: AtomicBool::new(false),
            state: Mutex::new(State {
                over: false,
                has_owner: false,
                backend: BackendFeatures::empty(),
                features: Features::EMPTY,
                status: DeviceStatus::empty(),
                config_call: None,
                vrings: vrings.collect(),
            }),
        })
    }

    /// The device is being taken away: the client is told, and its worker ends.
    pub(super) fn hang_up(&self) {
        self.hung_up.store(true, Ordering::Release);
        self.state.lock().over = true;
        self.hang_up.raise();
        // The worker forgets the events at its end.
        self.raise_errors();
        self.channel.end();
    }

    pub(super) fn is_hung_up(&self) -> bool {
        self.hung_up.load(Ordering::Acquire)
    }

    /// Does something with the device and with what the client has set, unless the device has been
    /// taken away.
    pub(super) fn with<R>(
        &self,
        act: impl FnOnce(&mut State) -> Result<R, VhostError>,
    ) -> Result<R, VhostError> {
        let mut state = self.state.lock();
        if state.over {
            return Err(VhostError::HungUp);
        }
        act(&mut state)
    }

    /// As [`with`](Self::with), for a client that has set itself as the owner.
    pub(super) fn with_owned<R>(
        &self,
        act: impl FnOnce(&mut State) -> Result<R, VhostError>,
    ) -> Result<R, VhostError> {
        self.with(|state| {
            if state.has_owner {
                act(state)
            } else {
                Err(VhostError::NoOwner)
            }
        })
    }

    /// As [`with_owned`](Self::with_owned), with one of the queues.
    pub(super) fn with_vring<R>(
        &self,
        queue: u16,
        act: impl FnOnce(&mut State) -> Result<R, VhostError>,
    ) -> Result<R, VhostError> {
        self.with_owned(|state| {
            if usize::from(queue) < state.vrings.len() {
                act(state)
            } else {
                Err(VhostError::NoSuchQueue)
            }
        })
    }

    /// Raises the error event of every queue that has one.
    pub(super) fn raise_errors(&self) {
        let state = self.state.lock();
        let errors: Vec<_> = (state.vrings.iter())
            .filter_map(|vring| vring.err.clone())
            .collect();
        drop(state);
        for error in errors {
            error.raise();
        }
    }

    /// The event whose raising is a kick of the queue now, if there is one.
    pub(super) fn kick_to_forward(&self, queue: u16) -> Option<Arc<Event>> {
        let state = self.state.lock();
        let vring = state.vrings.get(usize::from(queue))?;
        let forwards = !state.over
            && state.is_running()
            && vring.enabled
            && !state.features.contains(virtio::F::NOTIFICATION_DATA);
        if forwards { vring.kick.clone() } else { None }
    }

    /// The device has been reset: what the client has set for it has gone, except its events.
    pub(super) fn forget_session(&self) {
        let mut state = self.state.lock();
        state.features = Features::EMPTY;
        state.status = DeviceStatus::empty();
        for vring in &mut state.vrings {
            vring.enabled = false;
        }
        state.cut_doorbells();
    }

    /// The device is not the client's any more, and forgets its events.
    pub(super) fn finish(&self) {
        let mut state = self.state.lock();
        state.over = true;
        state.config_call = None;
        state.cut_doorbells();
        let vrings = core::mem::take(&mut state.vrings);
        drop(state);
        drop(vrings);
    }
}

impl State {
    /// Whether the device may be looking at its queues.
    pub(super) fn is_running(&self) -> bool {
        self.status.contains(DeviceStatus::DRIVER_OK) && !self.status.contains(DeviceStatus::FAILED)
    }

    /// Whether the features have been agreed on, and queues can be set up.
    pub(super) fn has_agreed(&self) -> bool {
        self.status.contains(DeviceStatus::FEATURES_OK)
    }

    /// The index must have been checked.
    pub(super) fn vring(&mut self, queue: u16) -> &mut Vring {
        &mut self.vrings[usize::from(queue)]
    }

    /// Tells the device which events to raise, as far as it takes them now.
    pub(super) fn apply_calls(&self, device: &VdpaClaim) -> Result<(), OpError> {
        device.set_config_callback(self.config_call.clone().map(Callback::event))?;
        for (queue, vring) in (0..).zip(&self.vrings) {
            device.set_queue_callback(queue, vring.call.clone().map(Callback::event))?;
        }
        Ok(())
    }

    /// Makes the doorbells that the client has lead nowhere.
    fn cut_doorbells(&mut self) {
        for switch in self.vrings.iter_mut().filter_map(|v| v.doorbell.take()) {
            switch.switch(&Doorbell::event(Arc::default()));
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("device", &self.device)
            .field("options", &self.options)
            .field("hung_up", &self.is_hung_up())
            .finish_non_exhaustive()
    }
}
