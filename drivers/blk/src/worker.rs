//! The task of a disk: it takes completed requests from the queue, and follows what the disk says
//! of itself.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::pin::pin;
use core::sync::atomic::Ordering;
use core::task::{Poll, Waker};

use embassy_futures::yield_now;
use virtio_bus::Completion;
use virtq::Event;

use super::disk::Shared;
use super::limits::read_capacity;

/// A disk's task, as the driver sees it.
#[derive(Debug)]
pub(super) struct Worker {
    /// Wakes the task to find that it shall end.
    event: Arc<Event>,
    ended: Arc<Event>,
}

impl Worker {
    /// Starts the task. `event` is the queue's.
    pub(super) fn spawn(shared: &Arc<Shared>, event: Arc<Event>, completion: Completion) -> Self {
        let ended = Arc::<Event>::default();
        let worker = Self {
            event: Arc::clone(&event),
            ended: Arc::clone(&ended),
        };
        let task = serve(Arc::clone(shared), event, completion, ended);
        shared.device.platform().spawn(&shared.name, Box::pin(task));
        worker
    }

    /// Waits for the end of the task, which follows when the disk has been stopped.
    pub(super) async fn join(&self) {
        self.event.raise();
        self.ended.wait().await;
        // A second join finds it ended, too.
        self.ended.raise();
    }
}

async fn serve(shared: Arc<Shared>, event: Arc<Event>, completion: Completion, ended: Arc<Event>) {
    match completion {
        Completion::Interrupt => until_watched(&shared, shared.requests.run(&event)).await,
        Completion::Polled => until_watched(&shared, poll(&shared)).await,
    }
    if let Some(broken) = shared.requests.broken() {
        log::error!("{}: {broken}", shared.name);
        shared.device.mark_broken();
    }
    shared.stop();
    drop(shared);
    ended.raise();
}

/// Works, and [watches](watch) the disk beside it, until one of both ends. The disk's configuration
/// is looked at when there is something to see: most wake-ups are for requests.
async fn until_watched(shared: &Shared, work: impl Future<Output = ()>) {
    let mut work = pin!(work);
    let mut watch = pin!(watch(shared));
    let mut known: Option<Waker> = None;
    poll_fn(|cx| {
        if work.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let waker = cx.waker();
        let waits = known.as_ref().is_some_and(|known| known.will_wake(waker));
        if waits && !shared.device.config_event().is_raised() {
            return Poll::Pending;
        }
        known = Some(waker.clone());
        watch.as_mut().poll(cx)
    })
    .await;
}

/// Completes requests without interrupts, as often as other tasks leave time for it.
async fn poll(shared: &Shared) {
    while !shared.is_stopped() && shared.requests.broken().is_none() {
        shared.requests.complete();
        yield_now().await;
    }
}

/// Follows the disk's configuration, and the disk when it is moved. Returns when it is broken or
/// gone.
async fn watch(shared: &Shared) {
    loop {
        shared.device.config_event().wait().await;
        if let Some(rewind) = shared.device.rewind_wanted() {
            match shared.requests.rewind() {
                Ok(()) => rewind.done(),
                Err(error) => log::error!("{}: cannot be moved: {error}", shared.name),
            }
        }
        if shared.device.check().is_err() {
            return;
        }
        match read_capacity(&shared.device) {
            Ok(capacity) => shared.capacity.store(capacity, Ordering::Relaxed),
            Err(error) => log::warn!("{}: cannot read the new capacity: {error}", shared.name),
        }
    }
}
