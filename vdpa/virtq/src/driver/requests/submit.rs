//! The future of one request.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::books::{Fate, Flight};
use super::{RequestError, RequestReason, Requests};
use crate::driver::{AddReason, Chain, Notify, Used};

/// The future of one request; see [`Requests::submit`].
#[must_use = "the device gets the request when the future is polled"]
pub struct Submit<'a, T: Chain> {
    requests: &'a Requests<T>,
    /// Until it is given to the device.
    chain: Option<T>,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    New,
    WaitingForRoom(u64),
    InFlight(Flight),
    Ended,
}

impl<'a, T: Chain> Submit<'a, T> {
    pub(super) fn new(requests: &'a Requests<T>, chain: T) -> Self {
        Self {
            requests,
            chain: Some(chain),
            state: State::New,
        }
    }
}

impl<T: Chain> Unpin for Submit<'_, T> {}

impl<T: Chain> Future for Submit<'_, T> {
    type Output = Result<Used<T>, RequestError<T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let submit = self.get_mut();
        match submit.state {
            State::New => submit.poll_start(None, cx),
            State::WaitingForRoom(ticket) => submit.poll_start(Some(ticket), cx),
            State::InFlight(flight) => submit.poll_in_flight(flight, cx),
            State::Ended => panic!("a future is not polled after it has ended"),
        }
    }
}

impl<T: Chain> Submit<'_, T> {
    #[inline]
    fn poll_start(
        &mut self,
        ticket: Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Used<T>, RequestError<T>>> {
        let mut inner = self.requests.inner.lock();
        let started = match inner.end() {
            Some(reason) => Err(reason),
            None => match inner.start(&mut self.chain, cx.waker()) {
                Ok(flight) => Ok(flight),
                Err(AddReason::Full) => {
                    let ticket = inner.queue_up(ticket, cx.waker());
                    self.state = State::WaitingForRoom(ticket);
                    return Poll::Pending;
                }
                Err(AddReason::Empty) => Err(RequestReason::Empty),
                Err(AddReason::TooLong) => Err(RequestReason::TooLong),
                Err(AddReason::Foreign) => Err(RequestReason::Foreign),
                Err(AddReason::Broken(broken)) => Err(RequestReason::Broken(broken)),
            },
        };
        match started {
            Ok(flight) => {
                self.state = State::InFlight(flight);
                let kick = (inner.queue.publish() == Notify::Needed).then(|| inner.queue.place());
                // A chain may have left more room than this one takes.
                let next = match ticket {
                    Some(_) if inner.queue.free() > 0 => inner.room.pop_front(),
                    _ => None,
                };
                drop(inner);
                if let Some(place) = kick {
                    self.requests.doorbell.ring(place);
                }
                if let Some(next) = next {
                    next.waker.wake();
                }
                Poll::Pending
            }
            Err(reason) => {
                drop(inner);
                self.state = State::Ended;
                let chain = self.chain.take();
                Poll::Ready(Err(RequestError { reason, chain }))
            }
        }
    }

    #[inline]
    fn poll_in_flight(
        &mut self,
        flight: Flight,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Used<T>, RequestError<T>>> {
        let mut inner = self.requests.inner.lock();
        if let Some(used) = inner.fetch(flight) {
            self.state = State::Ended;
            return Poll::Ready(Ok(used));
        }
        if let Some(reason) = inner.end() {
            inner.forget(flight);
            self.state = State::Ended;
            return Poll::Ready(Err(RequestError {
                reason,
                chain: None,
            }));
        }
        let waiter = &mut inner.waiters[flight.token.index()];
        if let Fate::Waiting(waker) = &mut waiter.state
            && waiter.request == flight.request
        {
            waker.clone_from(cx.waker());
        }
        Poll::Pending
    }

    fn leave(&mut self) {
        let mut inner = self.requests.inner.lock();
        match self.state {
            State::InFlight(flight) => {
                let used = inner.forget(flight);
                drop(inner);
                drop(used);
            }
            State::WaitingForRoom(number) => {
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
            State::New | State::Ended => {}
        }
    }
}

impl<T: Chain> Drop for Submit<'_, T> {
    fn drop(&mut self) {
        if matches!(self.state, State::InFlight(_) | State::WaitingForRoom(_)) {
            self.leave();
        }
    }
}

impl<T: Chain> fmt::Debug for Submit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submit").finish_non_exhaustive()
    }
}
