//! Where a client leaves what has to be done and the shim's worker takes it.
//!
//! What may wait for the device is done by a task of the shim: a client that drops a future half-way, or
//! never polls it again, stops nobody else, least of all the removal of the device.

use alloc::sync::Arc;
use core::future::poll_fn;
use core::task::Poll;

use spin::Mutex;
use vdpa::wait::Waiters;
use virtio::DeviceStatus;
use virtq::Event;

use super::VhostError;

/// What the worker does for its client, one at a time.
#[derive(Debug)]
pub(super) enum Order {
    Open,
    SetStatus(DeviceStatus),
    EnableVring(u16),
    DisableVring(u16),
    SetVringKick(u16, Option<Arc<Event>>),
    Suspend,
    Resume,
    Settle(u16),
}

/// What became of an order.
type Outcome = Result<(), VhostError>;

/// The place of exchange between one client and its worker.
#[derive(Debug, Default)]
pub(super) struct Desk {
    papers: Mutex<Papers>,
    /// Raised for the worker.
    bell: Event,
    /// For whoever waits until there is room, or until the worker is done.
    changed: Waiters,
}

#[derive(Debug, Default)]
struct Papers {
    posted: Option<Posting>,
    /// No order is taken any more.
    ending: bool,
    /// How the worker has ended.
    ended: Option<Outcome>,
}

/// An order and where its outcome goes.
#[derive(Debug)]
struct Posting {
    order: Order,
    slip: Arc<Slip>,
}

/// Where the outcome of an order goes.
#[derive(Debug, Default)]
pub(super) struct Slip {
    outcome: Mutex<Option<Outcome>>,
    written: Event,
}

impl Slip {
    /// Tells the client, if it still listens.
    pub(super) fn answer(&self, outcome: Outcome) {
        *self.outcome.lock() = Some(outcome);
        self.written.raise();
    }
}

impl Desk {
    /// Has an order carried out. Dropped half-way, it is carried out all the same, once it has been posted.
    ///
    /// # Errors
    /// [`VhostError::HungUp`], if the worker takes no more; whatever becomes of the order.
    pub(super) async fn carry_out(&self, order: Order) -> Outcome {
        let slip = Arc::<Slip>::default();
        let mut order = Some(order);
        self.changed.until(|| self.post(&mut order, &slip)).await?;
        self.bell.raise();
        slip.written.wait().await;
        let outcome = slip.outcome.lock().take();
        outcome.unwrap_or(Err(VhostError::HungUp))
    }

    /// The next order, in the order of their arrival; `None`, if there will be none.
    pub(super) async fn next(&self) -> Option<(Order, Arc<Slip>)> {
        let posting = poll_fn(|cx| {
            loop {
                let mut papers = self.papers.lock();
                if let Some(posting) = papers.posted.take() {
                    return Poll::Ready(Some(posting));
                }
                if papers.ending {
                    return Poll::Ready(None);
                }
                drop(papers);
                if self.bell.poll_wait(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
        self.changed.wake();
        posting.map(|Posting { order, slip }| (order, slip))
    }

    /// The worker shall end after what it is at.
    pub(super) fn end(&self) {
        let mut papers = self.papers.lock();
        papers.ending = true;
        let unheard = papers.posted.take();
        drop(papers);
        if let Some(posting) = unheard {
            posting.slip.answer(Err(VhostError::HungUp));
        }
        self.bell.raise();
        self.changed.wake();
    }

    /// The worker has ended.
    pub(super) fn ended(&self, outcome: Outcome) {
        self.papers.lock().ended = Some(outcome);
        self.changed.wake();
    }

    /// Waits for the end of the worker.
    pub(super) async fn wait_for_end(&self) -> Outcome {
        self.changed.until(|| self.papers.lock().ended).await
    }

    /// Puts the order on the desk; `None`, if another one lies there.
    fn post(&self, order: &mut Option<Order>, slip: &Arc<Slip>) -> Option<Outcome> {
        let mut papers = self.papers.lock();
        if papers.ending {
            return Some(Err(VhostError::HungUp));
        }
        if papers.posted.is_some() {
            return None;
        }
        let order = order.take()?;
        papers.posted = Some(Posting {
            order,
            slip: Arc::clone(slip),
        });
        Some(Ok(()))
    }
}
