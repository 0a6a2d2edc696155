//! How a running device tells that it has used buffers: the interrupt vectors, from `DRIVER_OK` to
//! the next reset.
//!
//! In order of preference: a vector per queue and one for the configuration; one for all queues and
//! one for the configuration; one for everything. Without any, a task looks at the ISR status every
//! millisecond. A way whose vectors the device does not take is none. A handler only wakes.
//!
//! Source: VIRTIO 1.2, 4.1.5.1.2 and 4.1.5.3.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use pci::{Claim, Msix, MsixError, Vector};
use spin::Mutex;
use vdpa::Platform;
use vdpa::ops::OpError;
use vdpa::platform::{Callback, InterruptMessage};

use super::common::{CommonConfig, NO_VECTOR};
use super::function::{IsrStatus, VirtioFunction};

/// How often the ISR status is looked at if there is no vector.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// What to call for what.
#[derive(Clone, Default)]
pub(super) struct Callbacks {
    /// By queue index.
    pub(super) queues: Vec<Option<QueueCallback>>,
    pub(super) config: Option<Callback>,
}

/// What to call for a queue, and what counts how often.
#[derive(Clone)]
pub(super) struct QueueCallback {
    pub(super) callback: Callback,
    pub(super) counts: Arc<InterruptCounts>,
}

/// How often a queue's callback was called, and why.
#[derive(Default)]
pub(super) struct InterruptCounts {
    /// For messages of this queue alone.
    pub(super) own: Arc<AtomicU64>,
    /// For messages of several queues, and for the ISR status.
    pub(super) shared: AtomicU64,
}

impl Callbacks {
    fn call_queues(&self) {
        for queue in self.queues.iter().flatten() {
            queue.counts.shared.fetch_add(1, Ordering::Relaxed);
            queue.callback.call();
        }
    }

    fn call_config(&self) {
        self.config.iter().for_each(Callback::call);
    }

    fn is_empty(&self) -> bool {
        self.config.is_none() && self.queues.iter().all(Option::is_none)
    }
}

/// The interrupts of a running device. Dropped, no callback is called any more.
#[derive(Default)]
pub(super) struct Interrupts {
    /// The vector of each queue, by index.
    queues: Vec<u16>,
    /// The message of each queue that has a vector for itself.
    messages: Vec<Option<InterruptMessage>>,
    // The vectors go before the capability is put back.
    _vectors: Vec<Vector>,
    _msix: Option<Msix>,
    _poller: Option<Poller>,
}

impl Interrupts {
    /// Takes the vectors that `callbacks` need, or as many as there are and the device takes, and
    /// tells the device.
    ///
    /// # Errors
    /// [`OpError::Broken`], if the table of vectors cannot be had.
    pub(super) fn start(
        claim: &Claim,
        virtio: &VirtioFunction,
        platform: &Arc<dyn Platform>,
        callbacks: Callbacks,
    ) -> Result<Self, OpError> {
        if callbacks.is_empty() {
            return Ok(Self::default());
        }
        let msix = claim.msix().map_err(|_| OpError::Broken)?;
        let interrupts = msix.and_then(|msix| Self::with_vectors(msix, virtio, &callbacks));
        Ok(interrupts.unwrap_or_else(|| Self::polled(virtio.isr(), platform, callbacks)))
    }

    /// The message of a queue that has a vector for itself.
    pub(super) fn message(&self, index: u16) -> Option<InterruptMessage> {
        self.messages.get(usize::from(index)).copied().flatten()
    }

    /// Points a queue to its vector again, after a reset of the queue alone.
    pub(super) fn tell_queue(&self, common: &CommonConfig, index: u16) -> Result<(), OpError> {
        let Some(&vector) = self.queues.get(usize::from(index)) else {
            return Ok(());
        };
        tell_queue(common, index, vector)
    }

    /// The first of the three ways to share vectors for which there are enough, and whose vectors
    /// the device takes; `None`, if it is none. Then MSI-X is off, so that the device keeps the ISR
    /// status.
    fn with_vectors(msix: Msix, virtio: &VirtioFunction, callbacks: &Callbacks) -> Option<Self> {
        for plan in PLANS {
            let mut request = Request::new(&msix, callbacks.queues.len());
            let Ok(()) = plan(&mut request, callbacks, virtio) else {
                continue;
            };
            if request.tell(virtio.common()).is_err() {
                log::debug!("{msix:?}: the device refuses a vector");
                silence(virtio.common(), callbacks.queues.len());
                continue;
            }
            let Request {
                vectors,
                queues,
                messages,
                ..
            } = request;
            let (_vectors, _msix) = (vectors, Some(msix));
            return Some(Self {
                queues,
                messages,
                _vectors,
                _msix,
                _poller: None,
            });
        }
        None
    }

    fn polled(isr: IsrStatus, platform: &Arc<dyn Platform>, callbacks: Callbacks) -> Self {
        Self {
            _poller: Some(Poller::start(isr, platform, callbacks)),
            ..Self::default()
        }
    }
}

fn tell_queue(common: &CommonConfig, index: u16, vector: u16) -> Result<(), OpError> {
    let taken = common.queue(index).set_vector(vector) == vector;
    taken.then_some(()).ok_or(OpError::VectorRefused)
}

/// Takes every vector back from the device.
fn silence(common: &CommonConfig, queues: usize) {
    common.set_config_vector(NO_VECTOR);
    for (index, _) in (0..).zip(0..queues) {
        common.queue(index).set_vector(NO_VECTOR);
    }
}

/// Vectors taken so far for one way to share them.
struct Request<'a> {
    msix: &'a Msix,
    vectors: Vec<Vector>,
    queues: Vec<u16>,
    messages: Vec<Option<InterruptMessage>>,
    config: u16,
}

impl<'a> Request<'a> {
    fn new(msix: &'a Msix, queues: usize) -> Self {
        let messages = alloc::vec![None; queues];
        let queues = alloc::vec![NO_VECTOR; queues];
        Self {
            msix,
            vectors: Vec::new(),
            queues,
            messages,
            config: NO_VECTOR,
        }
    }

    fn vector(&mut self, handler: Callback) -> Result<&Vector, MsixError> {
        let vector = self.msix.allocate(handler)?;
        Ok(self.vectors.push_mut(vector))
    }

    fn config_vector(&mut self, callbacks: &Callbacks) -> Result<(), MsixError> {
        if let Some(callback) = &callbacks.config {
            self.config = self.vector(callback.clone())?.index();
        }
        Ok(())
    }

    /// Writes the vectors to the device and checks that it has taken them.
    fn tell(&self, common: &CommonConfig) -> Result<(), OpError> {
        if common.set_config_vector(self.config) != self.config {
            return Err(OpError::VectorRefused);
        }
        let mut queues = (0..).zip(&self.queues);
        queues.try_for_each(|(index, vector)| tell_queue(common, index, *vector))
    }

    /// Gives every queue with a callback this vector.
    fn share(&mut self, callbacks: &Callbacks, vector: u16) {
        for (queue, callback) in self.queues.iter_mut().zip(&callbacks.queues) {
            *queue = if callback.is_some() {
                vector
            } else {
                NO_VECTOR
            };
        }
    }
}

type Plan = fn(&mut Request<'_>, &Callbacks, &VirtioFunction) -> Result<(), MsixError>;

const PLANS: [Plan; 3] = [per_queue, shared_queues, shared_by_all];

fn per_queue(
    request: &mut Request<'_>,
    callbacks: &Callbacks,
    _: &VirtioFunction,
) -> Result<(), MsixError> {
    for (index, callback) in callbacks.queues.iter().enumerate() {
        if let Some(callback) = callback {
            let vector = request.vector(callback.callback.counted(&callback.counts.own))?;
            let (entry, message) = (vector.index(), vector.message());
            request.queues[index] = entry;
            request.messages[index] = Some(message);
        }
    }
    request.config_vector(callbacks)
}

fn shared_queues(
    request: &mut Request<'_>,
    callbacks: &Callbacks,
    _: &VirtioFunction,
) -> Result<(), MsixError> {
    let all = callbacks.clone();
    let handler = Callback::new(move || all.call_queues());
    let vector = request.vector(handler)?.index();
    request.share(callbacks, vector);
    request.config_vector(callbacks)
}

fn shared_by_all(
    request: &mut Request<'_>,
    callbacks: &Callbacks,
    virtio: &VirtioFunction,
) -> Result<(), MsixError> {
    let (all, isr) = (callbacks.clone(), virtio.isr());
    let handler = move || {
        // With MSI-X a device need not keep the ISR status; silence means that anything may be.
        let reasons = isr.take().unwrap_or(0);
        all.call_queues();
        if reasons == 0 || reasons & IsrStatus::CONFIG != 0 {
            all.call_config();
        }
    };
    let vector = request.vector(Callback::new(handler))?.index();
    request.share(callbacks, vector);
    if callbacks.config.is_some() {
        request.config = vector;
    }
    Ok(())
}

/// A task that looks at the ISR status until this value is dropped.
struct Poller(Arc<Mutex<Option<Polled>>>);

/// What it needs. The register goes with the callbacks: the function must be free when its driver
/// is.
struct Polled {
    isr: IsrStatus,
    callbacks: Callbacks,
}

impl Poller {
    fn start(isr: IsrStatus, platform: &Arc<dyn Platform>, callbacks: Callbacks) -> Self {
        let shared = Arc::new(Mutex::new(Some(Polled { isr, callbacks })));
        let (polled, clock) = (Arc::clone(&shared), Arc::clone(platform));
        let task = async move {
            loop {
                clock.sleep(POLL_INTERVAL).await;
                let polled = polled.lock();
                let Some(Polled { isr, callbacks }) = &*polled else {
                    return;
                };
                let Some(reasons) = isr.take() else {
                    // There is no answer. A waiter finds out by asking the device.
                    callbacks.call_queues();
                    callbacks.call_config();
                    return;
                };
                if reasons & IsrStatus::QUEUE != 0 {
                    callbacks.call_queues();
                }
                if reasons & IsrStatus::CONFIG != 0 {
                    callbacks.call_config();
                }
            }
        };
        platform.spawn("virtio_pci poll", Box::pin(task));
        Self(shared)
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // The task holds the lock while it calls: afterwards it does not any more.
        let polled = self.0.lock().take();
        drop(polled);
    }
}
