//! Where frames lie on their way through a card.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use virtq::device::Chain;

use super::frame::Frame;
use super::receive::MERGE_MAX;

/// The places of frames that are neither with a driver nor in a cable.
pub(super) struct Forwarding {
    /// The place of a frame that comes back, once there was one.
    pub(super) looped: Option<Frame>,
    /// Frames that have come through the cable, and their places when they have been received.
    pub(super) arrived: VecDeque<Frame>,
    pub(super) consumed: Vec<Frame>,
    /// Frames for the cable, and free places.
    pub(super) leaving: VecDeque<Frame>,
    pub(super) places: Vec<Frame>,
    /// Buffers of one frame.
    pub(super) merged: Vec<Chain>,
}

impl Forwarding {
    /// No frame.
    pub(super) fn new() -> Self {
        Self {
            looped: None,
            arrived: VecDeque::new(),
            consumed: Vec::new(),
            leaving: VecDeque::new(),
            places: Vec::new(),
            merged: Vec::with_capacity(MERGE_MAX.into()),
        }
    }

    /// Forgets what has arrived and was not received.
    pub(super) fn lose_arrived(&mut self) {
        self.consumed.extend(self.arrived.drain(..));
    }
}
