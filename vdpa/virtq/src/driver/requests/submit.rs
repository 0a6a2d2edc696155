//! The future of one request.

use core::fmt;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::request_table::{Flight, RequestState, Waiter};
use super::{RequestError, RequestReason, Requests};
use crate::driver::{AddError, AddReason, Chain, Notify, Used};

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

impl<T: Chain> Requests<T> {
    /// Gives the device a chain, once there is room for it, and waits until the device has used it.
    ///
    /// # Errors
    /// The future ends with a [`RequestError`].
    pub fn submit(&self, chain: T) -> Submit<'_, T> {
        Submit {
            requests: self,
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
        let ticket = match submit.state {
            State::New => None,
            State::WaitingForRoom(ticket) => Some(ticket),
            State::InFlight(flight) => return submit.poll_in_flight(flight, cx),
            State::Ended => panic!("a future is not polled after it has ended"),
        };
        let Ok(mut inner) = submit.requests.inner.try_borrow_mut() else {
            return try_again(cx);
        };
        let chain = submit.chain.take().expect("no chain has been added yet");
        if inner.stopped {
            drop(inner);
            return submit.refuse(chain, RequestReason::Stopped);
        }
        let (token, unfetched) = match inner.queue.add_instead(chain) {
            Ok(added) => added,
            Err(AddError { chain, reason }) => {
                let reason = match reason {
                    AddReason::Full => {
                        let ticket = inner.queue_up(ticket, cx.waker());
                        submit.state = State::WaitingForRoom(ticket);
                        submit.chain = Some(chain);
                        return Poll::Pending;
                    }
                    AddReason::Empty => RequestReason::Empty,
                    AddReason::TooLong => RequestReason::TooLong,
                    AddReason::Foreign => RequestReason::Foreign,
                    AddReason::Broken(broken) => RequestReason::Broken(broken),
                };
                drop(inner);
                return submit.refuse(chain, reason);
            }
        };
        let request = inner.next_request;
        inner.next_request += 1;
        let waiter = Waiter {
            request,
            state: RequestState::Waiting(cx.waker().clone()),
        };
        let before = mem::replace(&mut inner.waiters[token.index()], waiter);
        if let Some(unfetched) = unfetched {
            inner.keep_unfetched(&before, token, unfetched);
        }
        submit.state = State::InFlight(Flight { token, request });
        let kick = match inner.queue.publish() {
            Notify::Needed => Some(inner.queue.place()),
            Notify::NotNeeded => None,
        };
        // A chain may have left more room than this one takes.
        let next = match ticket {
            Some(_) if inner.queue.free() > 0 => inner.room.pop_front(),
            _ => None,
        };
        drop(inner);
        if let Some(place) = kick {
            submit.requests.doorbell.ring(place);
        }
        if let Some(next) = next {
            next.waker.wake();
        }
        Poll::Pending
    }
}

impl<T: Chain> Submit<'_, T> {
    #[cold]
    fn refuse(
        &mut self,
        chain: T,
        reason: RequestReason,
    ) -> Poll<Result<Used<T>, RequestError<T>>> {
        self.state = State::Ended;
        let chain = Some(chain);
        Poll::Ready(Err(RequestError { reason, chain }))
    }

    #[inline]
    fn poll_in_flight(
        &mut self,
        flight: Flight,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Used<T>, RequestError<T>>> {
        let Ok(mut inner) = self.requests.inner.try_borrow_mut() else {
            return try_again(cx);
        };
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
        if let RequestState::Waiting(waker) = &mut waiter.state
            && waiter.request == flight.request
        {
            waker.clone_from(cx.waker());
        }
        Poll::Pending
    }

    #[cold]
    fn leave(&mut self) {
        let mut inner = self.requests.borrow();
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

/// Another processor has borrowed the queue, for straight code.
#[cold]
fn try_again<T>(cx: &mut Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

impl<T: Chain> Drop for Submit<'_, T> {
    #[inline]
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
