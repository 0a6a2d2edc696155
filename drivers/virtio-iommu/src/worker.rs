//! The task of an IOMMU: it takes events, and resets an IOMMU that is out of use.

use alloc::boxed::Box;
use alloc::sync::Arc;

use embassy_futures::select::select3;
use embassy_futures::yield_now;
use vdpa::ops::OpError;
use virtq::{Event, Pending};

use crate::error::Dead;
use crate::shared::Shared;

/// An IOMMU's task, as the driver sees it.
#[derive(Debug)]
pub(crate) struct Worker {
    ended: Arc<Event>,
}

impl Worker {
    /// Starts the task. `event` is that of the event queue.
    pub(crate) fn spawn(shared: &Arc<Shared>, event: Arc<Event>) -> Self {
        let ended = Arc::<Event>::default();
        let task = serve(Arc::clone(shared), event, Arc::clone(&ended));
        shared.device.platform().spawn(&shared.name, Box::pin(task));
        Self { ended }
    }

    /// Waits for the end of the task, which follows when the IOMMU has been stopped.
    pub(crate) async fn join(&self) {
        self.ended.wait().await;
        // A second join finds it ended, too.
        self.ended.raise();
    }
}

async fn serve(shared: Arc<Shared>, event: Arc<Event>, ended: Arc<Event>) {
    while shared.is_alive() {
        while shared.is_alive() && shared.handle_events() == Pending::Yes {
            yield_now().await;
        }
        let config = shared.device.config_event();
        select3(event.wait(), config.wait(), shared.end.wait()).await;
        match shared.device.check() {
            Ok(()) => {}
            Err(OpError::Broken) => shared.give_up(Dead::Broken),
            Err(_) => shared.give_up(Dead::Gone),
        }
    }
    if !shared.is_stopped() {
        // A request may still be carried out. After a reset nobody is in a domain, so nobody
        // reaches what it maps.
        match shared.device.reset().await {
            Ok(()) => log::error!(
                "{}: no device behind it reaches memory any more",
                shared.name
            ),
            Err(error) => log::error!("{}: not reset: {error}", shared.name),
        }
    }
    drop(shared);
    ended.raise();
}
