//! Half-open connections, which are bounded in time and in number.
//!
//! A socket of `smoltcp` listens for one connection. A SYN takes it, and a peer that never answers
//! the SYN-ACK keeps it for ever: some dozen SYNs make a server deaf. So a connection has to be
//! opened within [`HALF_OPEN_MAX`]; and when a SYN finds nobody listening, the oldest half-open
//! connection has to go for the next one. The SYN itself is dropped without a word, because its
//! sender repeats it. Connections that are open are never touched by this.
//!
//! SYN cookies would keep no state at all, but the sequence numbers are the stack's, which takes
//! none from outside: every segment of a connection would have to be rewritten.
//!
//! Sources: RFC 4987, 3.1 to 3.4.

use alloc::vec::Vec;
use core::task::Waker;
use core::time::Duration;

/// How long a connection may stay half-open: the SYN-ACK is sent four times meanwhile.
pub(crate) const HALF_OPEN_MAX: Duration = Duration::from_secs(10);

/// The sockets that listen, or did so until a SYN came.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    sockets: Vec<Socket>,
    next: u64,
    /// SYNs that were let pass in the last turn of the stack and in this one, and are in no socket
    /// yet: their tasks have not run.
    passed: [usize; 2],
}

/// Names a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(u64);

#[derive(Debug)]
struct Socket {
    id: Id,
    port: u16,
    state: State,
    waker: Waker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Listening,
    /// The number says the order.
    HalfOpen(u64),
    /// It has to give its place to another one.
    Evicted,
}

impl Backlog {
    /// A backlog of nothing.
    pub(crate) const fn new() -> Self {
        Self {
            sockets: Vec::new(),
            next: 0,
            passed: [0; 2],
        }
    }

    /// A socket listens on `port`. `waker` is woken when it is evicted.
    pub(crate) fn listen(&mut self, port: u16, waker: Waker) -> Id {
        let id = Id(self.draw());
        self.sockets.push(Socket {
            id,
            port,
            state: State::Listening,
            waker,
        });
        id
    }

    /// A SYN has come to a socket.
    pub(crate) fn half_open(&mut self, id: Id) {
        let order = self.draw();
        if let Some(socket) = self.find(id)
            && socket.state == State::Listening
        {
            socket.state = State::HalfOpen(order);
            self.arrive();
        }
    }

    /// Whether a socket has to give its place to another one.
    pub(crate) fn is_evicted(&mut self, id: Id) -> bool {
        self.find(id)
            .is_none_or(|socket| socket.state == State::Evicted)
    }

    /// A socket has a connection, or is no more.
    pub(crate) fn remove(&mut self, id: Id) {
        if let Some(index) = self.sockets.iter().position(|socket| socket.id == id)
            && self.sockets.swap_remove(index).state == State::Listening
        {
            self.arrive();
        }
    }

    /// Whether a SYN to `port` is for the stack, which refuses it if nobody listens there.
    pub(crate) fn admits(&mut self, port: u16) -> bool {
        let mut there = 0;
        let mut listening = 0;
        let mut oldest: Option<(u64, usize)> = None;
        for (index, socket) in self.sockets.iter().enumerate() {
            if socket.port != port {
                continue;
            }
            there += 1;
            match socket.state {
                State::Listening => listening += 1,
                State::HalfOpen(order) => {
                    let this = (order, index);
                    oldest = Some(oldest.map_or(this, |oldest| oldest.min(this)));
                }
                State::Evicted => {}
            }
        }
        let passed: usize = self.passed.iter().sum();
        if there == 0 || listening > passed {
            self.passed[1] += usize::from(there != 0);
            return true;
        }
        if let Some((_, index)) = oldest {
            let socket = &mut self.sockets[index];
            socket.state = State::Evicted;
            socket.waker.wake_by_ref();
        }
        false
    }

    /// A turn of the stack is over. The tasks that it woke run before the end of the next one, so
    /// what was let pass in the turn before and has reached no socket was no SYN that opens
    /// anything.
    pub(crate) fn end_turn(&mut self) {
        self.passed = [self.passed[1], 0];
    }

    fn arrive(&mut self) {
        let [before, now] = &mut self.passed;
        let count = if *before > 0 { before } else { now };
        *count = count.saturating_sub(1);
    }

    fn find(&mut self, id: Id) -> Option<&mut Socket> {
        self.sockets.iter_mut().find(|socket| socket.id == id)
    }

    fn draw(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 80;

    fn listening(count: usize) -> (Backlog, Vec<Id>) {
        let mut backlog = Backlog::new();
        let ids = (0..count).map(|_| backlog.listen(PORT, Waker::noop().clone()));
        let ids = ids.collect();
        (backlog, ids)
    }

    #[test]
    fn as_many_syns_pass_as_sockets_listen_whether_their_tasks_have_run_or_not() {
        let (mut backlog, ids) = listening(3);
        assert!(backlog.admits(PORT));
        backlog.half_open(ids[0]);
        assert!(backlog.admits(PORT));
        assert!(backlog.admits(PORT));
        assert!(!backlog.admits(PORT), "two are taken, but do not know it");
        assert!(backlog.admits(81), "nobody is there, and the stack says so");
    }

    #[test]
    fn the_oldest_gives_its_place_and_one_syn_costs_one_place() {
        let (mut backlog, ids) = listening(3);
        for id in [ids[1], ids[0], ids[2]] {
            assert!(backlog.admits(PORT));
            backlog.half_open(id);
        }
        assert!(!backlog.admits(PORT));
        let evicted = ids.iter().map(|id| backlog.is_evicted(*id));
        assert_eq!(evicted.collect::<Vec<_>>(), [false, true, false]);
        backlog.remove(ids[1]);
        let again = backlog.listen(PORT, Waker::noop().clone());
        assert!(backlog.admits(PORT), "its successor");
        backlog.half_open(again);
        assert!(!backlog.admits(PORT));
        assert!(backlog.is_evicted(ids[0]), "the next one in age");
        assert!(!backlog.is_evicted(again));
    }

    #[test]
    fn without_half_open_ones_a_full_server_refuses() {
        let (mut backlog, ids) = listening(1);
        assert!(backlog.admits(PORT));
        backlog.half_open(ids[0]);
        backlog.remove(ids[0]);
        assert!(
            backlog.admits(PORT),
            "passed on to the stack, which refuses"
        );
    }

    #[test]
    fn syns_that_open_nothing_do_not_take_places_for_ever() {
        let (mut backlog, _) = listening(2);
        assert!(backlog.admits(PORT));
        assert!(backlog.admits(PORT));
        assert!(!backlog.admits(PORT));
        backlog.end_turn();
        assert!(!backlog.admits(PORT), "their tasks may still come");
        backlog.end_turn();
        assert!(backlog.admits(PORT), "they were repetitions");
    }
}
