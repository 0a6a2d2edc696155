//! Many requests in flight on one queue, each a future.
//!
//! Dropping a future does not take its buffers away from the device: the chain stays with the queue
//! and is dropped when the device returns it. A lock guards the queue, held for straight code only
//! and never in an interrupt handler, which has [`Event::raise`] to wake [`Requests::run`].

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use core::fmt;
use core::future::poll_fn;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use atomic_waker::AtomicWaker;
use spin::Mutex;

use super::{AddReason, Broken, Chain, Notify, Pending, Queue, RewindError, Used};
use crate::{Doorbell, Event, Statistics};

/// A queue whose every chain is a future.
pub struct Requests<T: Chain> {
    inner: Mutex<Inner<T>>,
    doorbell: Doorbell,
    /// Wakes [`Requests::run`] to notice that it shall end.
    runner: AtomicWaker,
    statistics: Arc<Statistics>,
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

struct Inner<T: Chain> {
    queue: Queue<T>,
    /// Who waits for the chain that a token names.
    waiters: Box<[Waiter<T>]>,
    /// Chains that came back but were not fetched before their token was taken again, by request.
    unfetched: BTreeMap<u64, Used<T>>,
    next_request: u64,
    /// Who waits for free descriptors, first come first served.
    room: VecDeque<Ticket>,
    next_ticket: u64,
    stopped: bool,
}

enum Waiter<T> {
    /// Nobody: the token is free, or its future was dropped.
    Nobody,
    Waiting(u64, Waker),
    /// The request of this number is complete. The token may be taken again at any time.
    Done(u64, Used<T>),
}

/// A request that is with the device.
#[derive(Clone, Copy)]
struct Flight {
    token: usize,
    request: u64,
}

struct Ticket {
    number: u64,
    waker: Waker,
}

impl<T: Chain> Requests<T> {
    /// Takes a queue that is ready, and the device's doorbell for it.
    #[must_use]
    pub fn new(queue: Queue<T>, doorbell: Doorbell) -> Self {
        let size = usize::from(queue.size());
        let statistics = queue.statistics();
        let inner = Inner {
            queue,
            waiters: (0..size).map(|_| Waiter::Nobody).collect(),
            unfetched: BTreeMap::new(),
            next_request: 0,
            room: VecDeque::new(),
            next_ticket: 0,
            stopped: false,
        };
        Self {
            inner: Mutex::new(inner),
            doorbell,
            runner: AtomicWaker::new(),
            statistics,
        }
    }

    /// Gives the device a chain, once there is room for it, and waits until the device has used it.
    ///
    /// # Errors
    /// The future ends with a [`RequestError`].
    pub fn submit(&self, chain: T) -> Submit<'_, T> {
        Submit {
            requests: self,
            state: State::New(chain),
        }
    }

    /// Takes every chain that the device has used and wakes who waits for it. Returns how many.
    pub fn complete(&self) -> usize {
        let mut completed = 0;
        loop {
            let mut inner = self.inner.lock();
            match inner.complete_one() {
                Ok(Some(wakers)) => {
                    drop(inner);
                    completed += 1;
                    wakers.into_iter().flatten().for_each(Waker::wake);
                }
                Ok(None) => return completed,
                Err(_) => {
                    drop(inner);
                    self.wake_everybody();
                    return completed;
                }
            }
        }
    }

    /// Completes requests whenever `event` is raised, until the queue is stopped or broken.
    pub async fn run(&self, event: &Event) {
        loop {
            self.complete();
            match self.rearm() {
                None => return,
                Some(Pending::Yes) => {}
                Some(Pending::No) => poll_fn(|cx| self.poll_event(event, cx)).await,
            }
        }
    }

    /// Starts the queue again while the device is at rest, as [`Queue::rewind`] does.
    ///
    /// # Errors
    /// [`RewindError`].
    pub fn rewind(&self) -> Result<(), RewindError> {
        // Whoever waits for what has been used hears of it now, before its id can be taken again.
        self.complete();
        self.inner.lock().queue.rewind()
    }

    /// Ends every request, present and future, with [`RequestReason::Stopped`].
    pub fn stop(&self) {
        self.inner.lock().stopped = true;
        self.wake_everybody();
    }

    /// Drops the chains that the device never returned, once it cannot touch memory any more, and
    /// says how many there were.
    pub fn reclaim(&self) -> usize {
        let mut reclaimed = 0;
        loop {
            let chain = self.inner.lock().queue.reclaim();
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
        self.inner.lock().queue.broken()
    }

    /// Enables interrupts; `None` if the queue has ended.
    fn rearm(&self) -> Option<Pending> {
        let mut inner = self.inner.lock();
        if inner.end().is_some() {
            None
        } else {
            Some(inner.queue.enable_interrupts())
        }
    }

    fn poll_event(&self, event: &Event, cx: &mut Context<'_>) -> Poll<()> {
        self.runner.register(cx.waker());
        if self.inner.lock().end().is_some() {
            return Poll::Ready(());
        }
        event.poll_wait(cx)
    }

    fn wake_everybody(&self) {
        let size = self.inner.lock().waiters.len();
        for index in 0..size {
            let waker = self.inner.lock().waiters[index].waker();
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
        self.inner.lock().room.pop_front()
    }
}

impl<T: Chain> fmt::Debug for Requests<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests")
            .field("queue", &self.inner.lock().queue)
            .finish_non_exhaustive()
    }
}

impl<T: Chain> Inner<T> {
    /// Why the queue takes no more requests, if it does not.
    fn end(&self) -> Option<RequestReason> {
        if self.stopped {
            return Some(RequestReason::Stopped);
        }
        self.queue.broken().map(RequestReason::Broken)
    }

    /// Takes one used chain; returns who waits for it and who waits for its descriptors.
    fn complete_one(&mut self) -> Result<Option<[Option<Waker>; 2]>, Broken> {
        let Some(used) = self.queue.take()? else {
            return Ok(None);
        };
        let waiter = &mut self.waiters[used.token.index()];
        let owner = match mem::replace(waiter, Waiter::Nobody) {
            Waiter::Waiting(request, waker) => {
                *waiter = Waiter::Done(request, used);
                Some(waker)
            }
            Waiter::Nobody | Waiter::Done(..) => None,
        };
        let next = self.room.pop_front().map(|ticket| ticket.waker);
        Ok(Some([owner, next]))
    }

    /// Adds a chain, or queues up for room under `ticket`.
    fn start(&mut self, chain: T, ticket: Option<u64>, waker: &Waker) -> Start<T> {
        if let Some(reason) = self.end() {
            return Start::Failed(RequestError {
                reason,
                chain: Some(chain),
            });
        }
        match self.queue.add(chain) {
            Ok(token) => {
                let flight = Flight {
                    token: token.index(),
                    request: self.next_request,
                };
                self.next_request += 1;
                let waiting = Waiter::Waiting(flight.request, waker.clone());
                let before = mem::replace(&mut self.waiters[flight.token], waiting);
                if let Waiter::Done(request, used) = before {
                    self.unfetched.insert(request, used);
                }
                let kick = (self.queue.publish() == Notify::Needed).then(|| self.queue.place());
                Start::Started(flight, kick)
            }
            Err(error) if error.reason == AddReason::Full => {
                let number = self.queue_up(ticket, waker);
                Start::Full(error.chain, number)
            }
            Err(error) => {
                let reason = match error.reason {
                    AddReason::Empty => RequestReason::Empty,
                    AddReason::Broken(broken) => RequestReason::Broken(broken),
                    AddReason::TooLong | AddReason::Full => RequestReason::TooLong,
                };
                Start::Failed(RequestError {
                    reason,
                    chain: Some(error.chain),
                })
            }
        }
    }

    /// Takes a request's chain if it has come back, and forgets the request if it has ended otherwise.
    fn fetch(&mut self, flight: Flight) -> Option<Used<T>> {
        let waiter = &mut self.waiters[flight.token];
        match mem::replace(waiter, Waiter::Nobody) {
            Waiter::Done(request, used) if request == flight.request => Some(used),
            Waiter::Waiting(request, _) if request == flight.request => None,
            other => {
                *waiter = other;
                self.unfetched.remove(&flight.request)
            }
        }
    }

    /// Waits for room: at the end of the line, or where the ticket stands, or again in front.
    fn queue_up(&mut self, ticket: Option<u64>, waker: &Waker) -> u64 {
        let waker = waker.clone();
        let Some(number) = ticket else {
            let number = self.next_ticket;
            self.next_ticket += 1;
            self.room.push_back(Ticket { number, waker });
            return number;
        };
        match self
            .room
            .iter_mut()
            .find(|waiting| waiting.number == number)
        {
            Some(waiting) => waiting.waker = waker,
            None => self.room.push_front(Ticket { number, waker }),
        }
        number
    }
}

impl<T> Waiter<T> {
    fn waker(&self) -> Option<Waker> {
        match self {
            Self::Waiting(_, waker) => Some(waker.clone()),
            Self::Nobody | Self::Done(..) => None,
        }
    }
}

enum Start<T> {
    /// It is with the device, which is to be notified of this place.
    Started(Flight, Option<u16>),
    Full(T, u64),
    Failed(RequestError<T>),
}

/// The future of one request; see [`Requests::submit`].
#[must_use = "the device gets the request when the future is polled"]
pub struct Submit<'a, T: Chain> {
    requests: &'a Requests<T>,
    state: State<T>,
}

enum State<T> {
    New(T),
    WaitingForRoom(T, u64),
    InFlight(Flight),
    Ended,
}

impl<T: Chain> Unpin for Submit<'_, T> {}

impl<T: Chain> Future for Submit<'_, T> {
    type Output = Result<Used<T>, RequestError<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (chain, ticket) = match mem::replace(&mut self.state, State::Ended) {
            State::New(chain) => (chain, None),
            State::WaitingForRoom(chain, ticket) => (chain, Some(ticket)),
            State::InFlight(flight) => return self.poll_in_flight(flight, cx),
            State::Ended => panic!("a future is not polled after it has ended"),
        };
        let start = self.requests.inner.lock().start(chain, ticket, cx.waker());
        match start {
            Start::Started(flight, kick) => {
                if let Some(place) = kick {
                    self.requests.doorbell.ring(place);
                }
                self.state = State::InFlight(flight);
                Poll::Pending
            }
            Start::Full(chain, ticket) => {
                self.state = State::WaitingForRoom(chain, ticket);
                Poll::Pending
            }
            Start::Failed(error) => Poll::Ready(Err(error)),
        }
    }
}

impl<T: Chain> Submit<'_, T> {
    fn poll_in_flight(
        &mut self,
        flight: Flight,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Used<T>, RequestError<T>>> {
        let mut inner = self.requests.inner.lock();
        if let Some(used) = inner.fetch(flight) {
            return Poll::Ready(Ok(used));
        }
        if let Some(reason) = inner.end() {
            return Poll::Ready(Err(RequestError {
                reason,
                chain: None,
            }));
        }
        inner.waiters[flight.token] = Waiter::Waiting(flight.request, cx.waker().clone());
        self.state = State::InFlight(flight);
        Poll::Pending
    }
}

impl<T: Chain> Drop for Submit<'_, T> {
    fn drop(&mut self) {
        let mut inner = self.requests.inner.lock();
        match self.state {
            State::InFlight(flight) => {
                let used = inner.fetch(flight);
                drop(inner);
                drop(used);
            }
            State::WaitingForRoom(_, number) => {
                let before = inner.room.len();
                inner.room.retain(|ticket| ticket.number != number);
                if inner.room.len() == before {
                    // The room it was woken for goes to the next in line.
                    let next = inner.room.pop_front();
                    drop(inner);
                    if let Some(next) = next {
                        next.waker.wake();
                    }
                }
            }
            State::New(_) | State::Ended => {}
        }
    }
}

impl<T: Chain> fmt::Debug for Submit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submit").finish_non_exhaustive()
    }
}
