//! A cable to another program: each frame is a datagram between two sockets, as QEMU's
//! `-netdev dgram` has it.
//!
//! No frame is lost on it: where one end is too slow the other one waits. Only what is sent while
//! nobody is at the other end goes into the void.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::PollFlags;

use crate::Wire;

/// Frames that wait in each direction.
const WAITING_MAX: usize = 64;

/// The longest frame: one of the largest MTU that a card has, with its header.
const FRAME_MAX: usize = 65536 + 18;

/// This end of the cable, which must be looked after.
#[derive(Debug)]
pub struct Cable {
    socket: UnixDatagram,
    peer: PathBuf,
    waiting: Arc<Mutex<Waiting>>,
    buffer: Vec<u8>,
}

/// What is plugged into the card.
#[derive(Debug)]
pub struct Plug(Arc<Mutex<Waiting>>);

/// Frames on their way, the oldest first.
#[derive(Debug, Default)]
struct Waiting {
    to_card: VecDeque<Vec<u8>>,
    from_card: VecDeque<Vec<u8>>,
}

impl Cable {
    /// A cable from a socket at `own`, which is made, to one at `peer`, which may come later.
    ///
    /// # Errors
    ///
    /// No socket can be made there.
    pub fn new(own: &Path, peer: PathBuf) -> io::Result<(Self, Plug)> {
        let socket = UnixDatagram::bind(own)?;
        socket.set_nonblocking(true)?;
        let waiting = Arc::default();
        let plug = Plug(Arc::clone(&waiting));
        let cable = Self {
            socket,
            peer,
            waiting,
            buffer: vec![0; FRAME_MAX],
        };
        Ok((cable, plug))
    }

    /// What has to happen before there is something to do.
    pub(super) fn events(&self) -> PollFlags {
        let waiting = lock(&self.waiting);
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, waiting.to_card.len() < WAITING_MAX);
        events.set(PollFlags::OUT, !waiting.from_card.is_empty());
        events
    }

    /// Takes in what has arrived, and sends what waits, as far as there is room.
    pub(super) fn work(&mut self) {
        let mut waiting = lock(&self.waiting);
        while waiting.to_card.len() < WAITING_MAX
            && let Ok(len) = self.socket.recv(&mut self.buffer)
        {
            waiting.to_card.push_back(self.buffer[..len].to_vec());
        }
        while let Some(frame) = waiting.from_card.front() {
            match send(&self.socket, &self.peer, frame) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Sent, or nobody is there.
                _ => drop(waiting.from_card.pop_front()),
            }
        }
    }
}

/// Sends a frame to a peer that may have come or come anew since the last one. Only a socket that
/// is connected can wait for room at its peer's.
fn send(socket: &UnixDatagram, peer: &Path, frame: &[u8]) -> io::Result<usize> {
    match socket.send(frame) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
        Err(_) => {
            socket.connect(peer)?;
            socket.send(frame)
        }
        sent => sent,
    }
}

impl AsFd for Cable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Wire for Plug {
    fn takes(&self, _pair: u16, _receive: usize) -> bool {
        lock(&self.0).from_card.len() < WAITING_MAX
    }

    fn send(&mut self, _pair: u16, frame: &[u8]) {
        lock(&self.0).from_card.push_back(frame.to_vec());
    }

    fn receive(&mut self, pair: u16) -> Option<Vec<u8>> {
        // Nothing tells the flows of the outside apart: all of them go to the first pair.
        (pair == 0)
            .then(|| lock(&self.0).to_card.pop_front())
            .flatten()
    }
}

/// Nothing panics with the lock held.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_both_ways_in_order_and_wait_for_room() {
        let folder = tempfile::tempdir().unwrap();
        let [own, peer] = ["own", "peer"].map(|name| folder.path().join(name));
        let (mut cable, mut plug) = Cable::new(&own, peer.clone()).unwrap();
        plug.send(0, b"into the void");
        cable.work();
        assert_eq!(cable.events(), PollFlags::IN);

        let other = UnixDatagram::bind(&peer).unwrap();
        other.set_nonblocking(true).unwrap();
        let mut sent: u32 = 0;
        while plug.takes(0, 0) {
            plug.send(0, &sent.to_ne_bytes());
            sent += 1;
            cable.work();
        }
        assert_eq!(cable.events(), PollFlags::IN | PollFlags::OUT);
        let mut frame = [0; 8];
        for expected in 0..sent {
            cable.work();
            assert_eq!(other.recv(&mut frame).unwrap(), 4);
            assert_eq!(frame[..4], expected.to_ne_bytes());
        }
        assert_eq!(cable.events(), PollFlags::IN);

        let mut arrived: u32 = 0;
        while other.send_to(&arrived.to_ne_bytes(), &own).is_ok() {
            arrived += 1;
            cable.work();
        }
        assert_eq!(cable.events(), PollFlags::empty());
        assert_eq!(plug.receive(1), None);
        for expected in 0..arrived {
            assert_eq!(plug.receive(0).unwrap(), expected.to_ne_bytes());
            cable.work();
        }
        assert_eq!(plug.receive(0), None);
    }
}
