//! One request: how it goes to the device and comes back, poll by poll, and the future of that.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::request_table::{Flight, RequestState};
use super::{RequestError, RequestReason, Requests};
use crate::driver::queue::Submitted;
use crate::driver::{AddReason, Chain, Used};

/// How far a request has come, for a future that [polls](Requests::poll_submit) it. A new request
/// has come nowhere.
#[derive(Debug, Default)]
pub struct Submission(State);

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    New,
    WaitingForRoom(u64),
    InFlight(Flight),
    Ended,
}

/// The future of one request; see [`Requests::submit`].
#[must_use = "the device gets the request when the future is polled"]
pub struct Submit<'a, T: Chain> {
    requests: &'a Requests<T>,
    /// Until it is given to the device.
    chain: Option<T>,
    submission: Submission,
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
            submission: Submission::default(),
        }
    }

    /// Gives the device `chain`, once there is room for it, and is ready when the device has used
    /// it. A future that polls this and is dropped before that [gives it up](Self::give_up).
    ///
    /// # Errors
    /// [`RequestError`].
    ///
    /// # Panics
    /// If the request has ended.
    #[inline]
    pub fn poll_submit(
        &self,
        chain: &mut Option<T>,
        submission: &mut Submission,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Used<T>, RequestError<T>>> {
        let ticket = match submission.0 {
            State::New => None,
            State::WaitingForRoom(ticket) => Some(ticket),
            State::InFlight(flight) => return self.poll_in_flight(flight, submission, cx),
            State::Ended => panic!("a future is not polled after it has ended"),
        };
        let Ok(mut inner) = self.inner.try_borrow_mut() else {
            return try_again(cx);
        };
        let new = chain.take().expect("no chain has been added yet");
        if inner.stopped {
            drop(inner);
            return submission.refuse(new, RequestReason::Stopped);
        }
        let Submitted {
            token,
            before,
            kick,
        } = match inner.queue.submit(new) {
            Ok(submitted) => submitted,
            Err(error) => {
                let reason = match error.reason {
                    AddReason::Full => {
                        let ticket = inner.queue_up(ticket, cx.waker());
                        submission.0 = State::WaitingForRoom(ticket);
                        *chain = Some(error.chain);
                        return Poll::Pending;
                    }
                    AddReason::Empty => RequestReason::Empty,
                    AddReason::TooLong => RequestReason::TooLong,
                    AddReason::Foreign => RequestReason::Foreign,
                    AddReason::Broken(broken) => RequestReason::Broken(broken),
                };
                drop(inner);
                return submission.refuse(error.chain, reason);
            }
        };
        if let Some(before) = before {
            inner.keep_unfetched(token, before);
        }
        let request = inner.next_request;
        inner.next_request += 1;
        let waiter = &mut inner.waiters[usize::from(token.0)];
        waiter.request = request;
        waiter.state = RequestState::Waiting(cx.waker().clone());
        submission.0 = State::InFlight(Flight { token, request });
        // A chain may have left more room than this one takes.
        let next = match ticket {
            Some(_) if inner.queue.free() > 0 => inner.room.pop_front(),
            _ => None,
        };
        drop(inner);
        if let Some(place) = kick {
            self.doorbell.ring(place);
        }
        if let Some(next) = next {
            next.waker.wake();
        }
        Poll::Pending
    }

    /// Nobody waits for a request any more. Its chain is dropped when the device returns it.
    #[inline]
    pub fn give_up(&self, submission: &mut Submission) {
        if matches!(submission.0, State::InFlight(_) | State::WaitingForRoom(_)) {
            self.leave(submission);
        }
    }

    #[inline]
    fn poll_in_flight(
        &self,
        flight: Flight,
        submission: &mut Submission,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Used<T>, RequestError<T>>> {
        let Ok(mut inner) = self.inner.try_borrow_mut() else {
            return try_again(cx);
        };
        if let Some(used) = inner.fetch(flight) {
            submission.0 = State::Ended;
            return Poll::Ready(Ok(used));
        }
        if let Some(reason) = inner.end() {
            inner.forget(flight);
            submission.0 = State::Ended;
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
    fn leave(&self, submission: &mut Submission) {
        let mut inner = self.borrow();
        match submission.0 {
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
        submission.0 = State::Ended;
    }
}

impl Submission {
    #[cold]
    fn refuse<T: Chain>(
        &mut self,
        chain: T,
        reason: RequestReason,
    ) -> Poll<Result<Used<T>, RequestError<T>>> {
        self.0 = State::Ended;
        let chain = Some(chain);
        Poll::Ready(Err(RequestError { reason, chain }))
    }
}

/// Another processor has borrowed the queue, for straight code.
#[cold]
fn try_again<T>(cx: &mut Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

impl<T: Chain> Unpin for Submit<'_, T> {}

impl<T: Chain> Future for Submit<'_, T> {
    type Output = Result<Used<T>, RequestError<T>>;

    // Futures that are in a hurry poll the request themselves.
    #[inline(never)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            requests,
            chain,
            submission,
        } = self.get_mut();
        requests.poll_submit(chain, submission, cx)
    }
}

impl<T: Chain> Drop for Submit<'_, T> {
    fn drop(&mut self) {
        self.requests.give_up(&mut self.submission);
    }
}

impl<T: Chain> fmt::Debug for Submit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submit").finish_non_exhaustive()
    }
}
