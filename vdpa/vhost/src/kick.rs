//! Passing a client's kick events on to the device.
//!
//! A client that has the doorbell itself needs none of this.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::task::Poll;

use vdpa::device::VdpaDevice;
use virtq::{Doorbell, Event};

/// A task that rings a queue's doorbell whenever the client raises its event.
#[derive(Debug)]
pub(super) struct Forwarder {
    kick: Arc<Event>,
    end: Arc<End>,
}

#[derive(Debug, Default)]
struct End {
    wanted: Event,
    reached: Event,
}

impl Forwarder {
    pub(super) fn start(
        device: &VdpaDevice,
        queue: u16,
        kick: &Arc<Event>,
        doorbell: Doorbell,
    ) -> Self {
        let end = Arc::<End>::default();
        let name = format!("{} kick {queue}", device.node().name());
        let task = forward(Arc::clone(kick), doorbell, Arc::clone(&end));
        device.platform().spawn(&name, Box::pin(task));
        Self {
            kick: Arc::clone(kick),
            end,
        }
    }

    pub(super) fn listens_to(&self, kick: &Arc<Event>) -> bool {
        Arc::ptr_eq(&self.kick, kick)
    }

    /// Ends the task. Afterwards the doorbell is not rung any more.
    pub(super) async fn stop(self) {
        self.end.wanted.raise();
        self.end.reached.wait().await;
    }
}

async fn forward(kick: Arc<Event>, doorbell: Doorbell, end: Arc<End>) {
    poll_fn(|cx| {
        if end.wanted.poll_wait(cx).is_ready() {
            return Poll::Ready(());
        }
        if kick.poll_wait(cx).is_ready() {
            // The queue runs without notification data, so there is no place to tell.
            doorbell.ring(0);
            // One kick for each turn: a client that kicks without end has to share the processor.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    end.reached.raise();
}
