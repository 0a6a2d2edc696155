//! Many requests in flight on one queue, each a future.
//!
//! Dropping a future does not take its buffers away from the device: the chain stays with the queue
//! and is dropped when the device returns it. There is no lock: a request borrows the queue for
//! straight code, and if another processor has borrowed it, tries again with the next poll.
//! Interrupt handlers do not borrow it; they have [`Event::raise`] to wake [`Requests::run`].

mod request_table;
mod submit;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::hint::spin_loop;
use core::task::{Context, Poll, Waker, ready};

use atomic_refcell::{AtomicRefCell, AtomicRefMut};
use atomic_waker::AtomicWaker;

use super::{Broken, Chain, Pending, Queue, RewindError};
use crate::{Doorbell, Event, Statistics};

pub use self::submit::Submission;

use self::request_table::{Inner, Ticket, Waiter};

/// A queue whose every chain is a future.
pub struct Requests<T: Chain> {
    inner: AtomicRefCell<Inner<T>>,
    doorbell: Doorbell,
    /// Wakes [`Requests::run`] to notice that it shall end.
    runner: AtomicWaker,
    statistics: Arc<Statistics>,
}

/// What is done when the device has used no chain.
#[derive(Clone, Copy)]
enum WhenIdle {
    Return,
    EnableInterrupts,
}

/// What has become of a look at the queue.
enum Progress {
    Completed,
    /// There was nothing; with interrupts enabled, there may be something now.
    Idle(Pending),
    /// The queue is broken, or is to interrupt no more.
    Ended,
}

/// Why a request did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestReason {
    /// The chain has no segment, or one of length zero.
    #[error("the request has no segment, or an empty one")]
    Empty,
    /// The chain is longer than the queue allows.
    #[error("the request is too long for the queue")]
    TooLong,
    /// A buffer has its address from the allocator of another device.
    #[error("a buffer of the request is another device's")]
    Foreign,
    /// The device has broken the queue.
    #[error(transparent)]
    Broken(Broken),
    /// The queue has been stopped: its device is gone, or is being reset.
    #[error("the queue has been stopped")]
    Stopped,
}

/// A request that did not complete.
pub struct RequestError<T> {
    /// Why.
    pub reason: RequestReason,
    /// The chain, unless it is with the device.
    pub chain: Option<T>,
}

impl<T> fmt::Debug for RequestError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestError")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl<T: Chain> Requests<T> {
    /// Takes a queue that is ready, and the device's doorbell for it.
    #[must_use]
    pub fn new(queue: Queue<T>, doorbell: Doorbell) -> Self {
        let size = usize::from(queue.size());
        let statistics = queue.statistics();
        let inner = Inner {
            queue,
            waiters: (0..size).map(|_| Waiter::new()).collect(),
            unfetched: Vec::new(),
            next_request: 0,
            room: VecDeque::new(),
            next_ticket: 0,
            stopped: false,
        };
        Self {
            inner: AtomicRefCell::new(inner),
            doorbell,
            runner: AtomicWaker::new(),
            statistics,
        }
    }

    /// Takes every chain that the device has used and wakes who waits for it. Returns how many.
    pub fn complete(&self) -> usize {
        let mut completed = 0;
        while matches!(self.advance(WhenIdle::Return), Progress::Completed) {
            completed += 1;
        }
        completed
    }

    /// Completes requests whenever `event` is raised, until the queue is stopped or broken.
    pub async fn run(&self, event: &Event) {
        let mut known = None;
        poll_fn(|cx| self.poll_run(event, &mut known, cx)).await;
    }

    /// Starts the queue again while the device is at rest, as [`Queue::rewind`] does.
    ///
    /// # Errors
    /// [`RewindError`].
    pub fn rewind(&self) -> Result<(), RewindError> {
        let mut inner = self.borrow();
        let rewound = inner.queue.rewind();
        // A task that waits for what has been used is told, and that before its token can be taken
        // again.
        let (wakers, chains) = inner.complete_set_aside();
        drop(inner);
        drop(chains);
        wakers.into_iter().for_each(Waker::wake);
        if matches!(rewound, Err(RewindError::Broken(_))) {
            self.wake_everybody();
        }
        rewound
    }

    /// Ends every request, present and future, with [`RequestReason::Stopped`].
    pub fn stop(&self) {
        self.borrow().stopped = true;
        self.wake_everybody();
    }

    /// Drops the chains that the device never returned, once it cannot touch memory any more, and
    /// says how many there were.
    pub fn reclaim(&self) -> usize {
        let mut reclaimed = 0;
        loop {
            let chain = self.borrow().queue.reclaim();
            if chain.is_none() {
                return reclaimed;
            }
            reclaimed += 1;
        }
    }

    /// The live counters of the queue.
    #[must_use]
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// How the device has broken the queue, if it has.
    #[must_use]
    pub fn broken(&self) -> Option<Broken> {
        self.borrow().queue.broken()
    }

    /// Borrows the queue for straight code, once nobody else has.
    #[inline]
    fn borrow(&self) -> AtomicRefMut<'_, Inner<T>> {
        loop {
            if let Ok(inner) = self.inner.try_borrow_mut() {
                return inner;
            }
            // Another processor has it.
            spin_loop();
        }
    }

    /// Takes the next chain that the device has used, and wakes who waits for it.
    fn advance(&self, when_idle: WhenIdle) -> Progress {
        let mut inner = self.borrow();
        let Ok(completed) = inner.complete() else {
            drop(inner);
            self.wake_everybody();
            return Progress::Ended;
        };
        let Some(completed) = completed else {
            return match when_idle {
                WhenIdle::Return => Progress::Idle(Pending::No),
                WhenIdle::EnableInterrupts if inner.end().is_some() => Progress::Ended,
                WhenIdle::EnableInterrupts => Progress::Idle(inner.queue.enable_interrupts()),
            };
        };
        // Nobody is woken, and nothing freed, while the queue is borrowed.
        drop(inner);
        completed.wake();
        Progress::Completed
    }

    /// `known` is the waker that `runner` has been told: it forgets it only at the end.
    fn poll_run(&self, event: &Event, known: &mut Option<Waker>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.runner.register(waker);
            *known = Some(waker.clone());
        }
        // What it was raised for is looked at now.
        event.take();
        loop {
            match self.advance(WhenIdle::EnableInterrupts) {
                Progress::Completed | Progress::Idle(Pending::Yes) => {}
                Progress::Idle(Pending::No) => ready!(event.poll_wait(cx)),
                Progress::Ended => return Poll::Ready(()),
            }
        }
    }

    fn wake_everybody(&self) {
        let size = self.borrow().waiters.len();
        for index in 0..size {
            let waker = self.borrow().waiters[index].waker();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        while let Some(ticket) = self.take_ticket() {
            ticket.waker.wake();
        }
        self.runner.wake();
    }

    fn take_ticket(&self) -> Option<Ticket> {
        self.borrow().room.pop_front()
    }
}

impl<T: Chain> fmt::Debug for Requests<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.try_borrow().ok();
        f.debug_struct("Requests")
            .field("queue", &inner.as_ref().map(|inner| &inner.queue))
            .finish_non_exhaustive()
    }
}
