//! The task of a control queue: it takes the card's answers, and tells a card again that has lost what it was told.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;

use embassy_futures::select::select;
use embassy_futures::yield_now;
use virtio_bus::Completion;
use virtq::Event;

use super::line::Line;

/// A control queue's task, as the driver sees it.
#[derive(Debug)]
pub(crate) struct Worker {
    ended: Arc<Event>,
}

impl Worker {
    /// Starts the task. `event` is the queue's.
    pub(crate) fn spawn(line: &Arc<Line>, event: Arc<Event>, completion: Completion) -> Self {
        let ended = Arc::<Event>::default();
        let task = serve(Arc::clone(line), event, completion, Arc::clone(&ended));
        line.device.platform().spawn(line.name(), Box::pin(task));
        Self { ended }
    }

    /// Waits for the end of the task, which follows when the line has been stopped.
    pub(crate) async fn join(&self) {
        self.ended.wait().await;
        // Whoever joins again finds it ended too.
        self.ended.raise();
    }
}

async fn serve(line: Arc<Line>, event: Arc<Event>, completion: Completion, ended: Arc<Event>) {
    match completion {
        Completion::Interrupt => select(answers(&line, &event), restore(&line)).await,
        Completion::Polled => select(poll(&line), restore(&line)).await,
    };
    if let Some(broken) = line.requests.broken() {
        log::error!("{}: {broken}", line.name());
        line.device.mark_broken();
    }
    line.stop();
    drop(line);
    ended.raise();
}

/// Takes answers whenever the card interrupts. Returns when there will be none any more.
async fn answers(line: &Line, event: &Event) {
    let mut run = pin!(line.requests.run(event));
    poll_fn(|cx| {
        if line.device.check().is_err() {
            return Poll::Ready(());
        }
        run.as_mut().poll(cx)
    })
    .await;
}

/// Takes answers without interrupts, as often as other tasks leave time for it while there is one to come.
async fn poll(line: &Line) {
    loop {
        line.work.wait().await;
        while line.requests.complete() == 0 && !line.slot.is_free() {
            let broken = line.requests.broken().is_some() || line.device.check().is_err();
            if broken || line.slot.is_closed() {
                return;
            }
            yield_now().await;
        }
    }
}

async fn restore(line: &Line) {
    loop {
        line.doubt.wait().await;
        line.restore().await;
    }
}
