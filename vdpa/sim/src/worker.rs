//! The task that plays a device's DMA engine.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use embassy_futures::select::select;
use embassy_futures::yield_now;

use super::device::Device;
use super::engine::Next;
use super::model::Model;

/// The longest sleep at once: a platform's clock need not know the end of time.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Serves the device's queues until it is told to stop.
pub(super) async fn work<M: Model>(device: Arc<Device<M>>) {
    // Room for every queue and the configuration, so that no turn allocates.
    let mut signals = Vec::with_capacity(usize::from(device.shape.queues) + 1);
    loop {
        // Mostly there is nothing to do but to wait for the bell.
        let mut waits = false;
        let next = poll_fn(|cx| {
            loop {
                if waits {
                    ready!(poll_bell(&device, cx));
                }
                if device.is_stopping() {
                    return Poll::Ready(None);
                }
                match device.turn(&mut signals) {
                    Next::Wait => waits = true,
                    next => return Poll::Ready(Some(next)),
                }
            }
        });
        match next.await {
            Some(Next::WaitUntil(time)) => wait_until(&device, time).await,
            Some(Next::Yield | Next::Wait) => yield_now().await,
            None => break,
        }
    }
    device.end();
}

/// Waits until the device is rung, and hears it.
fn poll_bell<M: Model>(device: &Device<M>, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        ready!(device.bell.event().poll_wait(cx));
        if device.bell.is_inside() || !device.faults.takes_kick() {
            return Poll::Ready(());
        }
    }
}

/// Waits until the device is rung, but not beyond a time; the next turn finds out whether it has come.
async fn wait_until<M: Model>(device: &Device<M>, time: Duration) {
    let left = time.saturating_sub(device.platform.now());
    let sleep = device.platform.sleep(left.min(SLEEP_MAX));
    select(device.bell.event().wait(), sleep).await;
}
