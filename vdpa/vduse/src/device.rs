//! A device as a whole: what it is, its state, and the way to its task.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::mem;
use core::time::Duration;

use embassy_futures::select::{Either, select};
use embassy_futures::yield_now;
use vdpa::ops::OpError;
use vdpa::wait::Waiters;
use vdpa::{Features, Platform};
use vduse_protocol::{DeviceConfig, Request, Response};
use virtq::Event;

use super::error::{AttachError, CreateError, OpenError};
use super::options::Options;
use super::signals::Signals;
use super::spaces::Spaces;
use super::state::State;
use super::sync::{AtomicUsize, Mutex, Ordering};
use super::vduse_queue::VduseQueue;

/// The most queues of a device, and the most groups and address spaces.
pub(super) const COUNT_MAX: u32 = 64;
/// The most requests of a queue that can be with a task.
const IN_FLIGHT_MAX: u16 = 256;
/// The shortest and the longest time for an answer: the bus waits for 30 seconds.
const DEADLINE_MIN: Duration = Duration::from_millis(1);
const DEADLINE_MAX: Duration = Duration::from_secs(25);
/// The features that are no device type's (VIRTIO 1.2, 2.2).
const TRANSPORT: Features = Features::from_bits(((1 << 18) - 1) << 24);

/// What every driver must accept.
pub(super) fn required() -> Features {
    (virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM).into()
}

/// The features that are the parent's, as far as it has them.
pub(super) fn possible() -> Features {
    required()
        | Features::from(virtio::F::INDIRECT_DESC | virtio::F::EVENT_IDX)
        | (virtio::F::RING_PACKED | virtio::F::IN_ORDER).into()
}

/// A device of a task.
pub(super) struct Device {
    name: String,
    device_id: u32,
    pub(super) vendor_id: u32,
    pub(super) offered: Features,
    pub(super) queue_align: usize,
    pub(super) config_size: u32,
    pub(super) options: Options,
    pub(super) spaces: Spaces,
    pub(super) platform: Arc<dyn Platform>,
    /// Wakes the task: a message, a kick, or a change.
    pub(super) event: Arc<Event>,
    state: Mutex<State>,
    /// How many are calling callbacks now.
    calling: AtomicUsize,
    /// Who waits for an answer of the task.
    waiters: Waiters,
}

impl Device {
    pub(super) fn new(
        config: &DeviceConfig,
        options: Options,
        platform: &Arc<dyn Platform>,
    ) -> Result<Arc<Self>, CreateError> {
        let offered = Features::from_bits(config.features.into());
        let transport = offered.intersection(TRANSPORT);
        if !possible().contains(transport) || !offered.contains(required()) {
            return Err(CreateError::Features);
        }
        if !options.features.are_known() {
            return Err(CreateError::ProtocolFeatures);
        }
        let count = |count: u32| {
            let count = Some(count).filter(|count| (1..=COUNT_MAX).contains(count));
            count
                .and_then(|count| u16::try_from(count).ok())
                .ok_or(CreateError::Count)
        };
        if !(1..=IN_FLIGHT_MAX).contains(&options.in_flight) {
            return Err(CreateError::InFlight);
        }
        if !(DEADLINE_MIN..=DEADLINE_MAX).contains(&options.deadline) {
            return Err(CreateError::Deadline);
        }
        let state = State::new(
            count(config.queues)?,
            count(config.groups)?,
            options.in_flight,
            config.config.clone(),
        );
        Ok(Arc::new(Self {
            name: config.name.clone(),
            device_id: config.device_id,
            vendor_id: config.vendor_id,
            offered,
            queue_align: (config.queue_align as usize).max(1),
            config_size: u32::try_from(config.config.len()).unwrap_or(u32::MAX),
            options,
            spaces: Spaces::new(count(config.address_spaces)?),
            platform: Arc::clone(platform),
            event: Arc::default(),
            state: Mutex::new(state),
            calling: AtomicUsize::new(0),
            waiters: Waiters::default(),
        }))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn device_id(&self) -> u32 {
        self.device_id
    }

    /// Looks at the state, or changes it where nobody is to be told.
    #[inline]
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.state.lock())
    }

    /// Changes the state, and then calls what the driver wants to be called, with no lock held.
    #[inline]
    pub(super) fn with_signals<R>(&self, act: impl FnOnce(&mut State, &mut Signals) -> R) -> R {
        let mut signals = Signals::default();
        let mut state = self.state.lock();
        let result = act(&mut state, &mut signals);
        if !signals.is_empty() {
            // The next holder of the lock knows that callbacks are still under way.
            self.calling.fetch_add(1, Ordering::AcqRel);
            drop(state);
            signals.call();
            self.calling.fetch_sub(1, Ordering::AcqRel);
        }
        result
    }

    /// Waits until no callback of an earlier state is under way.
    pub(super) async fn quiet(&self) {
        while self.calling.load(Ordering::Acquire) > 0 {
            yield_now().await;
        }
    }

    /// Asks the task for something and waits for the answer, but not longer than the deadline: then
    /// the device is broken.
    pub(super) async fn ask(&self, request: Request) -> Result<Response, OpError> {
        let posted = Posted::new(self, request)?;
        self.event.raise();
        let answer = self.waiters.until(|| {
            self.with(|state| {
                let answer = state.mailbox.take_answer(posted.id).map(Ok);
                answer.or(state.broken.then_some(Err(OpError::Broken)))
            })
        });
        match select(answer, self.platform.sleep(self.options.deadline)).await {
            Either::First(answer) => answer,
            Either::Second(()) => {
                self.break_down("its task has not answered in time");
                Err(OpError::Timeout)
            }
        }
    }

    /// The task has answered.
    pub(super) fn wake_waiters(&self) {
        self.waiters.wake();
    }

    /// Nobody can rely on the task any more.
    #[cold]
    pub(super) fn break_down(&self, why: &str) {
        self.with_signals(|state, signals| state.break_down(signals));
        self.tell_broken(why);
    }

    /// Lets everybody who waits know that the device has been broken.
    #[cold]
    fn tell_broken(&self, why: &str) {
        log::error!("vduse {}: {why}; the device is broken", self.name);
        self.waiters.wake();
        self.event.raise();
    }

    /// A task takes the device, if no other has it.
    pub(super) fn open(&self) -> Result<(), OpenError> {
        self.with(|state| {
            if state.retired {
                return Err(OpenError::NoDevice);
            }
            if state.opened {
                return Err(OpenError::Busy);
            }
            state.opened = true;
            Ok(())
        })?;
        // It looks at what its predecessor has left.
        self.event.raise();
        Ok(())
    }

    /// The task is gone: what it has not answered is for the next one. A driver waits for that no
    /// longer than for an answer.
    pub(super) fn close(self: &Arc<Self>) {
        let watch = self.with(|state| {
            state.opened = false;
            state.closed_at = self.platform.now();
            state.mailbox.take_back();
            let active = state
                .virtqueues
                .iter_mut()
                .filter_map(|virtqueue| virtqueue.active.as_mut());
            active.for_each(VduseQueue::abandon);
            // One watches, however often a task comes and goes.
            state.is_started() && !mem::replace(&mut state.watched, true)
        });
        if watch {
            let device = Arc::clone(self);
            let watching = async move { device.expect_task().await };
            self.platform.spawn(&self.name, Box::pin(watching));
        }
    }

    /// Breaks the device if it has been without a task for too long. A task that comes before has a
    /// device that works, one that comes after a broken one: nothing lies in between.
    async fn expect_task(self: Arc<Self>) {
        loop {
            let left = self.with_signals(|state, signals| {
                let alone = !state.opened && state.is_started();
                let end = state.closed_at.saturating_add(self.options.deadline);
                let left = alone.then(|| end.saturating_sub(self.platform.now()));
                if left == Some(Duration::ZERO) {
                    state.break_down(signals);
                }
                state.watched = alone && !state.broken;
                left
            });
            match left {
                None => return,
                Some(Duration::ZERO) => break,
                Some(left) => self.platform.sleep(left).await,
            }
        }
        self.tell_broken("no task has come for it");
    }

    pub(super) fn attach(&self) -> Result<(), AttachError> {
        self.with(|state| {
            if state.retired {
                Err(AttachError::NoDevice)
            } else if state.attached {
                Err(AttachError::Busy)
            } else if state.broken {
                Err(AttachError::Broken)
            } else if state
                .virtqueues
                .iter()
                .any(|virtqueue| virtqueue.size_max == 0)
            {
                Err(AttachError::NotSetUp)
            } else {
                state.attached = true;
                Ok(())
            }
        })
    }

    /// The bus is done with the device.
    pub(super) fn detach(&self) {
        self.forget_driver();
        self.with(|state| state.attached = false);
        self.event.raise();
    }

    /// Nothing of a driver is kept: what is mapped may be what keeps the device.
    pub(super) fn forget_driver(&self) {
        self.with(State::reset);
        for space in 0..self.spaces.count() {
            // It exists.
            let _ = self.spaces.clear(space);
            self.spaces.take_withdrawn(space);
        }
    }

    /// Whether the device can be attached.
    pub(super) fn is_offered(&self) -> bool {
        self.with(|state| {
            let complete = state
                .virtqueues
                .iter()
                .all(|virtqueue| virtqueue.size_max > 0);
            complete && !state.attached && !state.broken && !state.retired
        })
    }

    /// Nobody gets the device any more. False, if somebody has it.
    pub(super) fn retire(&self) -> bool {
        self.with(|state| {
            state.retired |= !state.attached && !state.opened;
            state.retired
        })
    }
}

/// A message that somebody waits for an answer to, for as long as he does.
struct Posted<'d> {
    device: &'d Device,
    id: u32,
}

impl<'d> Posted<'d> {
    fn new(device: &'d Device, request: Request) -> Result<Self, OpError> {
        let id = device.with(|state| {
            let post = (!state.broken).then(|| state.mailbox.post(request));
            post.ok_or(OpError::Broken)
        })?;
        Ok(Self { device, id })
    }
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        self.device.with(|state| state.mailbox.forget(self.id));
    }
}
