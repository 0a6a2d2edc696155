//! What is behind a network card.

use std::collections::VecDeque;
use std::fmt;

/// The other end of the cable. Frames come without virtio's header.
pub trait Wire: Send + fmt::Debug {
    /// Whether it takes a frame from this pair of queues now, which has so many receive buffers
    /// ready.
    fn takes(&self, _pair: u16, _receive: usize) -> bool {
        true
    }

    /// The card sends a frame.
    fn send(&mut self, pair: u16, frame: &[u8]);

    /// The next frame for a pair of queues. It is asked for while there is a buffer to put it into.
    fn receive(&mut self, pair: u16) -> Option<Vec<u8>>;
}

/// A cable whose ends are joined: what a pair of queues sends, it receives. It takes a frame when
/// there is a buffer for it, so that none is ever on the way.
#[derive(Debug, Default)]
pub struct Loopback(VecDeque<(u16, Vec<u8>)>);

impl Wire for Loopback {
    fn takes(&self, pair: u16, receive: usize) -> bool {
        receive > self.0.iter().filter(|(other, _)| *other == pair).count()
    }

    fn send(&mut self, pair: u16, frame: &[u8]) {
        self.0.push_back((pair, frame.to_vec()));
    }

    fn receive(&mut self, pair: u16) -> Option<Vec<u8>> {
        let at = self.0.iter().position(|(other, _)| *other == pair)?;
        self.0.remove(at).map(|(_, frame)| frame)
    }
}
