//! A vDPA device whose queues a test serves and whose faults a test chooses.

mod maps;
mod ops;
mod ring;
mod traits;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem;

use spin::Mutex;
use virtio::DeviceStatus;
use virtq::testing::{DeviceRing, HeapDma, Request};
use virtq::{DmaAddr, Event, RingAddresses};

use crate::Features;
use crate::VdpaOps;
use crate::dirty::pages;
use crate::features::ring_features;
use crate::iotlb::{IovaRange, Permission};
use crate::ops::{DirtyLog, OpError, QueueAddress, QueueState};
use crate::platform::{Callback, Platform};

use super::FakePlatform;

use self::maps::Maps;
use self::ops::Ops;
use self::ring::Ring;

pub use self::traits::{Traits, Translation};

/// The test's end of a vDPA device. The bus's end is [`FakeParent::ops`].
pub struct FakeParent {
    platform: Arc<FakePlatform>,
    device_type: u32,
    traits: Traits,
    maps: Maps,
    state: Mutex<State>,
}

/// What the device does when it is told to reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resets {
    /// It resets at once.
    #[default]
    Promptly,
    /// It never leaves reset, and goes on using its queues; the parent gives up after a second.
    Never,
}

#[derive(Default)]
struct State {
    offered: Features,
    accepted: Features,
    status: DeviceStatus,
    refuses_features: bool,
    keeps_config: bool,
    vanished: bool,
    config: Vec<u8>,
    generation: u32,
    config_callback: Option<Callback>,
    queues: Vec<Queue>,
    suspended: bool,
    slow: bool,
    stuck: bool,
    dirty_log: Option<DirtyLog>,
    /// The address space of each group that is not in the first one.
    group_spaces: Vec<(u16, u16)>,
    resets: Resets,
    fault: Option<Fault>,
    log: Vec<String>,
    frees: usize,
    on_free: Option<Box<dyn FnOnce() + Send>>,
}

#[derive(Default)]
struct Queue {
    size_max: u16,
    size: u16,
    address: Option<QueueAddress>,
    /// Where it starts, or where it stood when it was stopped.
    state: Option<QueueState>,
    callback: Option<Callback>,
    ring: Option<Ring>,
    kick: Arc<Event>,
    completed: u64,
    interrupts: u64,
}

/// Which fallible operation fails, counted from 0, and how.
struct Fault {
    left: usize,
    error: OpError,
}

impl FakeParent {
    /// A device of this type with these features besides `VIRTIO_F_VERSION_1`, one queue for each
    /// of `sizes` that says how large it can be, and this configuration space.
    #[must_use]
    pub fn new(
        platform: &Arc<FakePlatform>,
        device_type: u32,
        features: impl Into<Features>,
        sizes: &[u16],
        config: &[u8],
    ) -> Arc<Self> {
        let traits = Traits::default();
        Self::with_traits(platform, device_type, features, sizes, config, traits)
    }

    /// As [`new`](Self::new), with more to choose.
    #[must_use]
    pub fn with_traits(
        platform: &Arc<FakePlatform>,
        device_type: u32,
        features: impl Into<Features>,
        sizes: &[u16],
        config: &[u8],
        traits: Traits,
    ) -> Arc<Self> {
        let queues = sizes.iter().map(|&size_max| Queue {
            size_max,
            ..Queue::default()
        });
        let state = State {
            offered: features.into() | virtio::F::VERSION_1.into(),
            config: config.to_vec(),
            queues: queues.collect(),
            ..State::default()
        };
        Arc::new(Self {
            platform: Arc::clone(platform),
            device_type,
            maps: Maps::new(traits.spaces),
            traits,
            state: Mutex::new(state),
        })
    }

    /// The operations, to register on the bus.
    #[must_use]
    pub fn ops(self: &Arc<Self>) -> Box<dyn VdpaOps> {
        Box::new(Ops(Arc::clone(self)))
    }

    /// The device status.
    #[must_use]
    pub fn status(&self) -> DeviceStatus {
        self.state.lock().status
    }

    /// The features that the driver has accepted.
    #[must_use]
    pub fn accepted(&self) -> Features {
        self.state.lock().accepted
    }

    /// Whether the driver has started the queue.
    #[must_use]
    pub fn is_ready(&self, queue: u16) -> bool {
        self.state.lock().queues[usize::from(queue)].ring.is_some()
    }

    /// Raised when the driver notifies the queue.
    #[must_use]
    pub fn kick(&self, queue: u16) -> Arc<Event> {
        Arc::clone(&self.state.lock().queues[usize::from(queue)].kick)
    }

    /// Whether the device has been suspended.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.state.lock().suspended
    }

    /// The address space that a group has been put into.
    #[must_use]
    pub fn group_space(&self, group: u16) -> u16 {
        let state = self.state.lock();
        let moved = state.group_spaces.iter().find(|moved| moved.0 == group);
        moved.map_or(0, |moved| moved.1)
    }

    /// What the device may reach in an address space: the ranges, in order, and how.
    #[must_use]
    pub fn mapped(&self, space: u16) -> Vec<(IovaRange, Permission)> {
        self.maps.list(space)
    }

    /// Takes the next chain that the driver has made available in the queue.
    pub fn pop(&self, queue: u16) -> Option<Request> {
        self.with_any_ring(queue, Ring::pop).flatten()
    }

    /// What the driver lets the device read.
    #[must_use]
    pub fn read(&self, queue: u16, request: &Request) -> Vec<u8> {
        self.with_any_ring(queue, |ring| ring.read(request))
            .unwrap_or_default()
    }

    /// Answers a request with `bytes` in the memory that the driver lets the device write, and
    /// interrupts if the driver wants that.
    ///
    /// # Panics
    /// If there is no room for the bytes.
    pub fn complete(&self, queue: u16, request: &Request, bytes: &[u8]) {
        let written = self.with_any_ring(queue, |ring| ring.write(request, bytes));
        if written.is_some() {
            self.log_written(request, bytes.len() as u64);
        }
        let wanted = self.with_any_ring(queue, |ring| {
            ring.finish(request, bytes.len());
            ring.wants_interrupt()
        });
        if wanted.is_some() {
            self.state.lock().queues[usize::from(queue)].completed += 1;
        }
        if wanted == Some(true) {
            self.interrupt(queue);
        }
    }

    /// Does something with the device side of a split queue; `None`, unless the device may use it.
    pub fn with_ring<R>(&self, queue: u16, act: impl FnOnce(&mut DeviceRing) -> R) -> Option<R> {
        let act = |ring: &mut Ring| match ring {
            Ring::Split(ring) => Some(act(ring)),
            Ring::Packed(_) => None,
        };
        self.with_any_ring(queue, act).flatten()
    }

    fn with_any_ring<R>(&self, queue: u16, act: impl FnOnce(&mut Ring) -> R) -> Option<R> {
        let mut state = self.state.lock();
        if state.suspended || !state.status.contains(DeviceStatus::DRIVER_OK) {
            return None;
        }
        state.queues[usize::from(queue)].ring.as_mut().map(act)
    }

    /// Sets the bits of the pages of so many bytes, if the driver wants a log. Notes if its memory
    /// is not there.
    fn log_written(&self, request: &Request, len: u64) {
        let Some(log) = self.state.lock().dirty_log else {
            return;
        };
        let mut left = len;
        for segment in &request.writable {
            let part = left.min(segment.len.into());
            left -= part;
            for page in pages(segment.addr, part).filter(|page| page / 8 < log.len) {
                let addr = DmaAddr(log.base.0 + page / 8);
                let mut byte = [0];
                let read = self.heap().read(addr, &mut byte);
                byte[0] |= 1 << (page % 8);
                if read.and_then(|()| self.heap().write(addr, &byte)).is_err() {
                    self.state.lock().note("no memory for the log");
                }
            }
        }
    }

    /// Raises the interrupt of a queue, wanted or not.
    pub fn interrupt(&self, queue: u16) {
        let callback = {
            let mut state = self.state.lock();
            let queue = &mut state.queues[usize::from(queue)];
            queue.interrupts += 1;
            queue.callback.clone()
        };
        if let Some(callback) = callback {
            callback.call();
        }
    }

    /// Changes the configuration space and tells the driver.
    ///
    /// # Panics
    /// If the range lies outside.
    pub fn change_config(&self, offset: usize, bytes: &[u8]) {
        {
            let mut state = self.state.lock();
            state.config[offset..offset + bytes.len()].copy_from_slice(bytes);
            state.generation += 1;
        }
        self.interrupt_config();
    }

    /// Asks for a reset, as a device does that cannot go on.
    pub fn demand_reset(&self) {
        self.state.lock().status |= DeviceStatus::DEVICE_NEEDS_RESET;
        self.interrupt_config();
    }

    /// Chooses what the device does when it is told to reset.
    pub fn set_resets(&self, resets: Resets) {
        self.state.lock().resets = resets;
    }

    /// From now on the device takes a millisecond for whatever may take time.
    pub fn be_slow(&self) {
        self.state.lock().slow = true;
    }

    /// From now on nothing that may take time ever ends, and the parent does not notice.
    pub fn be_stuck(&self) {
        self.state.lock().stuck = true;
    }

    /// From now on the device does not keep `FEATURES_OK`.
    pub fn refuse_features(&self) {
        self.state.lock().refuses_features = true;
    }

    /// From now on what a driver writes to the configuration space changes nothing.
    pub fn keep_config(&self) {
        self.state.lock().keeps_config = true;
    }

    /// From now on nobody answers who asks for the status, and no interrupt tells.
    pub fn vanish(&self) {
        self.state.lock().vanished = true;
    }

    /// Lets the fallible operation that comes after `skip` others fail.
    pub fn fail_after(&self, skip: usize, error: OpError) {
        self.state.lock().fault = Some(Fault { left: skip, error });
    }

    /// Whether the fault has not happened yet, and takes it away.
    pub fn take_fault(&self) -> bool {
        self.state.lock().fault.take().is_some()
    }

    /// What has been done to the device since the last call.
    pub fn take_log(&self) -> Vec<String> {
        mem::take(&mut self.state.lock().log)
    }

    /// How often operations have been freed.
    #[must_use]
    pub fn frees(&self) -> usize {
        self.state.lock().frees
    }

    /// What to do when the operations are freed.
    pub fn on_free(&self, act: impl FnOnce() + Send + 'static) {
        self.state.lock().on_free = Some(Box::new(act));
    }

    fn interrupt_config(&self) {
        let callback = self.state.lock().config_callback.clone();
        if let Some(callback) = callback {
            callback.call();
        }
    }

    fn heap(&self) -> &Arc<HeapDma> {
        self.platform.heap()
    }

    /// Notes the operation, and fails if the test wants that.
    fn step(&self, what: impl fmt::Display) -> Result<(), OpError> {
        let mut state = self.state.lock();
        state.note(what);
        match &mut state.fault {
            Some(Fault { left: 0, error }) => {
                let error = *error;
                state.fault = None;
                Err(error)
            }
            Some(fault) => {
                fault.left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// As [`step`](Self::step), for what may take time.
    async fn slow_step(&self, what: impl fmt::Display) -> Result<(), OpError> {
        let (slow, stuck) = {
            let state = self.state.lock();
            (state.slow, state.stuck)
        };
        if stuck {
            core::future::pending::<()>().await;
        }
        if slow {
            let time = core::time::Duration::from_millis(1);
            self.platform.sleep(time).await;
        }
        self.step(what)
    }

    async fn wait_in_vain(&self) {
        self.platform
            .sleep(core::time::Duration::from_secs(1))
            .await;
    }
}

impl State {
    fn note(&mut self, what: impl fmt::Display) {
        self.log.push(alloc::format!("{what}"));
    }

    /// The device side of a queue that has been set up.
    fn ring(&self, heap: &Arc<HeapDma>, queue: u16) -> Option<Ring> {
        let setup = &self.queues[usize::from(queue)];
        let address = setup.address?;
        let addresses = RingAddresses {
            descriptor: address.descriptor,
            driver: address.driver,
            device: address.device,
        };
        let features = ring_features(self.accepted);
        Some(Ring::new(
            heap,
            addresses,
            setup.size,
            features,
            setup.state,
        ))
    }

    /// A queue that is in use goes on where it was last told to: its place or state was set in
    /// suspension.
    fn move_ring(&mut self, heap: &Arc<HeapDma>, queue: u16) {
        if self.queues[usize::from(queue)].ring.is_some() {
            self.queues[usize::from(queue)].ring = self.ring(heap, queue);
        }
    }

    /// Everything that the driver has set is forgotten; what has been counted is not.
    fn reset(&mut self) {
        self.status = DeviceStatus::empty();
        self.accepted = Features::EMPTY;
        self.config_callback = None;
        self.suspended = false;
        self.dirty_log = None;
        self.group_spaces.clear();
        for queue in &mut self.queues {
            *queue = Queue {
                size_max: queue.size_max,
                kick: Arc::clone(&queue.kick),
                completed: queue.completed,
                interrupts: queue.interrupts,
                ..Queue::default()
            };
        }
    }
}

impl fmt::Debug for FakeParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("FakeParent")
            .field("device_type", &self.device_type)
            .field("status", &state.status)
            .finish_non_exhaustive()
    }
}
