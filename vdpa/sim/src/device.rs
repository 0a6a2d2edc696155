//! A simulated device as a whole: its state, its address spaces and its worker.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;

use embassy_futures::yield_now;
use spin::Mutex;
use vdpa::iotlb::IovaRange;
use vdpa::ops::{DirtyLog, OpError};
use vdpa::platform::Callback;
use vdpa::wait::Waiters;
use vdpa::{Features, Platform};

use super::bell::Bell;
use super::engine::{Engine, Next, base_offer, required, ring_offer};
use super::faults::Plan;
use super::model::{Change, Model, Shape};
use super::space::Spaces;
use super::{CreateError, Flavour, QUEUE_SIZE_LIMIT, SimConfig};

/// How long a device that does not come out of reset keeps its parent waiting.
const RESET_DEADLINE: Duration = Duration::from_secs(1);

/// A device of one type.
pub(super) struct Device<M> {
    pub(super) shape: Shape,
    pub(super) offered: Features,
    pub(super) flavour: Flavour,
    pub(super) iova_range: IovaRange,
    pub(super) queue_size: u16,
    pub(super) spaces: Spaces,
    pub(super) faults: Plan,
    pub(super) platform: Arc<dyn Platform>,
    pub(super) bell: Arc<Bell>,
    engine: Mutex<Engine<M>>,
    /// How many are calling callbacks now.
    calling: AtomicUsize,
    stopping: AtomicBool,
    ended: AtomicBool,
    waiters: Waiters,
}

impl<M: Model> Device<M> {
    /// Makes a device that has no worker yet.
    pub(super) fn new(
        model: M,
        config: &SimConfig,
        bell: Arc<Bell>,
        platform: &Arc<dyn Platform>,
    ) -> Result<Arc<Self>, CreateError> {
        let shape = model.shape();
        let offered = offer(&model, shape, config)?;
        let sizes = 2..=QUEUE_SIZE_LIMIT;
        if !config.queue_size.is_power_of_two() || !sizes.contains(&config.queue_size) {
            return Err(CreateError::BadQueueSize);
        }
        creation_step(&config.faults())?;
        let spaces = Spaces::new(shape.groups, config, &bell);
        creation_step(&config.faults())?;
        Ok(Arc::new(Self {
            shape,
            offered,
            flavour: config.flavour,
            iova_range: config.iova_range,
            queue_size: config.queue_size,
            spaces,
            faults: config.faults(),
            platform: Arc::clone(platform),
            bell,
            engine: Mutex::new(Engine::new(model, config)),
            calling: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            waiters: Waiters::default(),
        }))
    }

    /// Looks at the state, or changes it where nobody is to be told.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Engine<M>) -> R) -> R {
        act(&mut self.engine.lock())
    }

    /// Changes the state, and then calls what the driver wants to be called, with no lock held.
    #[inline]
    pub(super) fn with_signals<R>(
        &self,
        signals: &mut Vec<Callback>,
        act: impl FnOnce(&mut Engine<M>, &mut Vec<Callback>) -> R,
    ) -> R {
        let mut engine = self.engine.lock();
        let result = act(&mut engine, signals);
        if !signals.is_empty() {
            // The next holder of the lock knows that callbacks are still under way.
            self.calling.fetch_add(1, Ordering::AcqRel);
            drop(engine);
            signals.iter().for_each(Callback::call);
            signals.clear();
            self.calling.fetch_sub(1, Ordering::AcqRel);
        }
        result
    }

    /// Changes the model from outside, and tells the driver if its configuration space has changed.
    pub(super) fn change(&self, change: impl FnOnce(&mut M) -> Change) {
        self.with_signals(&mut Vec::new(), |engine, signals| {
            engine.change(change, signals);
        });
        self.bell.ring();
    }

    /// One turn of the worker.
    #[inline]
    pub(super) fn turn(&self, signals: &mut Vec<Callback>) -> Next {
        self.with_signals(signals, |engine, signals| {
            // A queue that is served looks at its memory by itself; the others are told.
            if self.bell.take_inside() {
                engine.refresh();
            }
            engine.turn(&*self.platform, &self.faults, signals)
        })
    }

    pub(super) async fn reset(&self) -> Result<(), OpError> {
        if self.faults.takes_reset() {
            self.platform.sleep(RESET_DEADLINE).await;
            return Err(OpError::Timeout);
        }
        self.forget();
        self.quiet().await;
        Ok(())
    }

    pub(super) async fn suspend(&self) {
        self.with_signals(&mut Vec::new(), Engine::suspend);
        self.quiet().await;
    }

    /// Afterwards no turn uses memory that was withdrawn before: none is under way while the lock
    /// is held.
    pub(super) fn settle(&self) {
        self.with(Engine::refresh);
    }

    /// Everything that a driver has told the device is forgotten.
    fn forget(&self) {
        self.with(Engine::reset);
        self.set_log(None);
    }

    /// From now on there is this log of the pages that are written, or none: no turn is under way
    /// while the lock is held, so what has been written before is written, and nothing goes to an
    /// earlier bitmap.
    pub(super) fn set_log(&self, log: Option<DirtyLog>) {
        self.with(|_| self.spaces.log().set(log));
    }

    /// Waits until no callback of an earlier state is under way.
    async fn quiet(&self) {
        while self.calling.load(Ordering::Acquire) > 0 {
            yield_now().await;
        }
    }

    /// Tells the worker to end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.bell.ring();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The worker's last act: nothing of a driver is kept.
    pub(super) fn end(&self) {
        self.forget();
        for space in 0..self.spaces.count() {
            // It exists.
            let _ = self.spaces.clear(space);
        }
        self.ended.store(true, Ordering::Release);
        self.waiters.wake();
    }

    /// Waits for the end of the worker.
    pub(super) async fn join(&self) {
        let ended = || self.ended.load(Ordering::Acquire).then_some(());
        self.waiters.until(ended).await;
    }
}

/// A place where making a device can fail.
pub(super) fn creation_step(faults: &Plan) -> Result<(), CreateError> {
    if faults.takes_creation() {
        Err(CreateError::OutOfMemory)
    } else {
        Ok(())
    }
}

/// The features that a device offers.
fn offer<M: Model>(model: &M, shape: Shape, config: &SimConfig) -> Result<Features, CreateError> {
    let all = shape.features | ring_offer() | base_offer();
    let offered = config.features.unwrap_or(all);
    let required = required(config.access_platform);
    let possible = all.contains(offered) && offered.contains(required);
    if possible && model.accepts(offered) {
        Ok(offered)
    } else {
        Err(CreateError::BadFeatures)
    }
}
