//! A cable to another program: each frame is a datagram between two sockets, as QEMU's `-netdev dgram` has it.
//!
//! Frames that arrive while the card has no buffer wait, up to a number; more are lost, as on any wire.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Wire;

/// Frames that wait for buffers.
const WAITING_MAX: usize = 256;

/// The longest frame: one of the largest MTU that a card has, with its header.
const FRAME_MAX: usize = 65536 + 18;

/// This end of the cable, which hears what arrives.
#[derive(Debug)]
pub struct Cable {
    socket: UnixDatagram,
    waiting: Arc<Mutex<VecDeque<Vec<u8>>>>,
    buffer: Vec<u8>,
}

/// What is plugged into the card.
#[derive(Debug)]
pub struct Plug {
    socket: UnixDatagram,
    peer: PathBuf,
    waiting: Arc<Mutex<VecDeque<Vec<u8>>>>,
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
        let plug = Plug {
            socket: socket.try_clone()?,
            peer,
            waiting: Arc::clone(&waiting),
        };
        let cable = Self {
            socket,
            waiting,
            buffer: vec![0; FRAME_MAX],
        };
        Ok((cable, plug))
    }

    /// Takes in what has arrived.
    pub(super) fn listen(&mut self) {
        // More than these are lost anyway.
        for _ in 0..WAITING_MAX {
            let Ok(len) = self.socket.recv(&mut self.buffer) else {
                return;
            };
            let mut waiting = lock(&self.waiting);
            if waiting.len() < WAITING_MAX {
                waiting.push_back(self.buffer[..len].to_vec());
            }
        }
    }
}

impl AsFd for Cable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Wire for Plug {
    fn send(&mut self, _pair: u16, frame: &[u8]) {
        // Nobody at the other end, or one who is too slow: the frame is lost.
        let _ = self.socket.send_to(frame, &self.peer);
    }

    fn receive(&mut self, pair: u16) -> Option<Vec<u8>> {
        // Nothing tells the flows of the outside apart: all of them go to the first pair.
        (pair == 0)
            .then(|| lock(&self.waiting).pop_front())
            .flatten()
    }
}

/// Nothing panics with the lock held.
fn lock(waiting: &Mutex<VecDeque<Vec<u8>>>) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_both_ways_and_too_many_are_lost() {
        let folder = tempfile::tempdir().unwrap();
        let [own, peer] = ["own", "peer"].map(|name| folder.path().join(name));
        let (mut cable, mut plug) = Cable::new(&own, peer.clone()).unwrap();
        plug.send(0, b"into the void");
        let other = UnixDatagram::bind(&peer).unwrap();
        plug.send(0, b"out");
        let mut frame = [0; 8];
        assert_eq!(other.recv(&mut frame).unwrap(), 3);
        assert_eq!(&frame[..3], b"out");
        let mut sent = 0;
        while sent < 2 * WAITING_MAX {
            other.send_to(b"in", &own).unwrap();
            sent += 1;
            cable.listen();
        }
        assert_eq!(plug.receive(1), None);
        let received = std::iter::from_fn(|| plug.receive(0));
        assert_eq!(received.filter(|frame| frame == b"in").count(), WAITING_MAX);
    }
}
