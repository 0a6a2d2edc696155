//! The task of a control queue: it takes the card's answers, and tells a card again that has lost
//! what it was told.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;

use embassy_futures::select::select;
use embassy_futures::yield_now;
use virtio_bus::Completion;
use virtq::Event;

use super::queue::ControlQueue;

/// A control queue's task, as the driver sees it.
#[derive(Debug)]
pub(crate) struct Worker {
    ended: Arc<Event>,
}

impl Worker {
    /// Starts the task. `event` is the queue's.
    pub(crate) fn spawn(
        control_queue: &Arc<ControlQueue>,
        event: Arc<Event>,
        completion: Completion,
    ) -> Self {
        let ended = Arc::<Event>::default();
        let task = serve(
            Arc::clone(control_queue),
            event,
            completion,
            Arc::clone(&ended),
        );
        control_queue
            .device
            .platform()
            .spawn(control_queue.name(), Box::pin(task));
        Self { ended }
    }

    /// Waits for the end of the task, which follows when the queue has been stopped.
    pub(crate) async fn join(&self) {
        self.ended.wait().await;
        // A second join finds it ended, too.
        self.ended.raise();
    }
}

async fn serve(
    control_queue: Arc<ControlQueue>,
    event: Arc<Event>,
    completion: Completion,
    ended: Arc<Event>,
) {
    match completion {
        Completion::Interrupt => {
            select(answers(&control_queue, &event), restore(&control_queue)).await
        }
        Completion::Polled => select(poll(&control_queue), restore(&control_queue)).await,
    };
    if let Some(broken) = control_queue.requests.broken() {
        log::error!("{}: {broken}", control_queue.name());
        control_queue.device.mark_broken();
    }
    control_queue.stop();
    drop(control_queue);
    ended.raise();
}

/// Takes answers whenever the card interrupts. Returns when there will be none any more.
async fn answers(control_queue: &ControlQueue, event: &Event) {
    let mut run = pin!(control_queue.requests.run(event));
    poll_fn(|cx| {
        if control_queue.device.check().is_err() {
            return Poll::Ready(());
        }
        run.as_mut().poll(cx)
    })
    .await;
}

/// Takes answers without interrupts, as often as other tasks leave time for it while there is one
/// to come.
async fn poll(control_queue: &ControlQueue) {
    loop {
        control_queue.work.wait().await;
        while control_queue.requests.complete() == 0 && !control_queue.slot.is_free() {
            let broken =
                control_queue.requests.broken().is_some() || control_queue.device.check().is_err();
            if broken || control_queue.slot.is_closed() {
                return;
            }
            yield_now().await;
        }
    }
}

async fn restore(control_queue: &ControlQueue) {
    loop {
        control_queue.doubt.wait().await;
        control_queue.restore().await;
    }
}
