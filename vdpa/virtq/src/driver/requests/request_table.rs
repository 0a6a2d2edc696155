//! The table of a queue with many requests: who waits for which chain, and who for room.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;
use core::task::Waker;

use super::RequestReason;
use crate::driver::{Broken, Chain, Queue, Token, Used};

pub(super) struct Inner<T: Chain> {
    pub(super) queue: Queue<T>,
    /// Who waits for the chain that a token names.
    pub(super) waiters: Box<[Waiter]>,
    /// Chains that came back but were not fetched before their token was taken again, with their
    /// requests.
    pub(super) unfetched: Vec<(u64, Used<T>)>,
    pub(super) next_request: u64,
    /// Who waits for free descriptors, first come first served.
    pub(super) room: VecDeque<Ticket>,
    pub(super) next_ticket: u64,
    pub(super) stopped: bool,
}

/// What has become of the last request that had a token.
pub(super) struct Waiter {
    pub(super) request: u64,
    pub(super) state: RequestState,
}

pub(super) enum RequestState {
    /// Nobody waits: there was none, or its future has ended.
    Over,
    Waiting(Waker),
    /// It is complete, and so much was written. Its chain is with the queue until the token is
    /// taken again.
    Done(u32),
}

/// A request that is with the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) token: Token,
    pub(super) request: u64,
}

pub(super) struct Ticket {
    pub(super) number: u64,
    pub(super) waker: Waker,
}

/// What a completion leaves to be done once the queue is not borrowed any more.
pub(super) struct Completed<T> {
    /// Who waited for the chain.
    owner: Option<Waker>,
    /// Who waits for its descriptors.
    next: Option<Waker>,
    /// The chain, if nobody waits for it.
    chain: Option<Used<T>>,
}

impl<T: Chain> Inner<T> {
    /// Why the queue takes no more requests, if it does not.
    pub(super) fn end(&self) -> Option<RequestReason> {
        if self.stopped {
            return Some(RequestReason::Stopped);
        }
        self.queue.broken().map(RequestReason::Broken)
    }

    /// Takes the next chain that the device has used.
    #[inline]
    pub(super) fn complete(&mut self) -> Result<Option<Completed<T>>, Broken> {
        let Some((token, written)) = self.queue.take_token()? else {
            return Ok(None);
        };
        let owner = self.waiters[token.index()].finish(written);
        let chain = match owner {
            Some(_) => None,
            None => self.queue.fetch(token, written),
        };
        Ok(Some(Completed {
            owner,
            next: self.room.pop_front().map(|ticket| ticket.waker),
            chain,
        }))
    }

    /// Completes what a rewind has set aside; returns who is to be woken and what nobody waits for.
    pub(super) fn complete_set_aside(&mut self) -> (Vec<Waker>, Vec<Used<T>>) {
        let (mut wakers, mut chains) = (Vec::new(), Vec::new());
        while let Some(used) = self.queue.take_set_aside() {
            let waiter = &mut self.waiters[used.token.index()];
            match waiter.finish(used.written) {
                Some(owner) => {
                    waiter.state = RequestState::Over;
                    self.unfetched.push((waiter.request, used));
                    wakers.push(owner);
                }
                None => chains.push(used),
            }
            wakers.extend(self.room.pop_front().map(|ticket| ticket.waker));
        }
        (wakers, chains)
    }

    /// The request that had a token before has been completed, and nobody has fetched its chain.
    #[cold]
    pub(super) fn keep_unfetched(&mut self, token: Token, chain: T) {
        let before = &self.waiters[token.index()];
        if let RequestState::Done(written) = before.state {
            let used = Used {
                token,
                chain,
                written,
            };
            self.unfetched.push((before.request, used));
        }
    }

    #[cold]
    fn take_unfetched(&mut self, request: u64) -> Option<Used<T>> {
        let mut unfetched = self.unfetched.iter();
        let place = unfetched.position(|(of, _)| *of == request)?;
        Some(self.unfetched.swap_remove(place).1)
    }

    /// Takes a request's chain if it has come back.
    #[inline]
    pub(super) fn fetch(&mut self, flight: Flight) -> Option<Used<T>> {
        let waiter = &mut self.waiters[flight.token.index()];
        if waiter.request != flight.request {
            return self.take_unfetched(flight.request);
        }
        match waiter.state {
            RequestState::Done(written) => {
                waiter.state = RequestState::Over;
                self.queue.fetch(flight.token, written)
            }
            RequestState::Waiting(_) => None,
            RequestState::Over => self.take_unfetched(flight.request),
        }
    }

    /// Nobody waits for this request any more. Returns its chain if it has come back.
    pub(super) fn forget(&mut self, flight: Flight) -> Option<Used<T>> {
        let used = self.fetch(flight);
        let waiter = &mut self.waiters[flight.token.index()];
        if waiter.request == flight.request {
            waiter.state = RequestState::Over;
        }
        used
    }

    /// Waits for room: at the end of the line, or where the ticket stands, or again in front.
    pub(super) fn queue_up(&mut self, ticket: Option<u64>, waker: &Waker) -> u64 {
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

impl<T> Completed<T> {
    /// Wakes those who wait, and drops what nobody waits for.
    #[inline]
    pub(super) fn wake(self) {
        if let Some(owner) = self.owner {
            owner.wake();
        }
        if let Some(next) = self.next {
            next.wake();
        }
        drop(self.chain);
    }
}

impl Waiter {
    pub(super) fn new() -> Self {
        Self {
            request: 0,
            state: RequestState::Over,
        }
    }

    /// The request has been completed; returns who waits for it.
    #[inline]
    pub(super) fn finish(&mut self, written: u32) -> Option<Waker> {
        if !matches!(self.state, RequestState::Waiting(_)) {
            return None;
        }
        match mem::replace(&mut self.state, RequestState::Done(written)) {
            RequestState::Waiting(waker) => Some(waker),
            RequestState::Over | RequestState::Done(_) => None,
        }
    }

    pub(super) fn waker(&self) -> Option<Waker> {
        match &self.state {
            RequestState::Waiting(waker) => Some(waker.clone()),
            RequestState::Over | RequestState::Done(_) => None,
        }
    }
}
