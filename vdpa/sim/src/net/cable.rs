//! A cable between two network cards. Each end belongs to one card, which takes the lock of a
//! direction once a turn, not once a frame.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem;

use spin::Mutex;

use crate::bell::Bell;

use super::frame::Frame;

/// How many frames a direction holds.
const FRAMES_MAX: usize = 64;

/// What connects two cards.
#[derive(Debug)]
pub struct Cable;

/// One end of a cable.
pub struct CableEnd {
    out: Arc<Lane>,
    incoming: Arc<Lane>,
}

/// One direction.
#[derive(Default)]
struct Lane(Mutex<State>);

#[derive(Default)]
struct State {
    frames: VecDeque<Frame>,
    /// Places for frames that have arrived, to be used again.
    spare: Vec<Frame>,
    receiver: Option<Arc<Bell>>,
    sender: Option<Arc<Bell>>,
    /// Whether the receiver takes frames.
    reception: Reception,
    /// Whether the sender waits for room.
    sender_waits: bool,
}

/// Whether a card is there to receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reception {
    #[default]
    Closed,
    Open,
}

impl Cable {
    /// The two ends of a new cable.
    #[must_use]
    #[expect(clippy::new_ret_no_self, reason = "a cable is nothing but its ends")]
    pub fn new() -> (CableEnd, CableEnd) {
        let (one, other) = (Arc::<Lane>::default(), Arc::<Lane>::default());
        let first = CableEnd {
            out: Arc::clone(&one),
            incoming: Arc::clone(&other),
        };
        let second = CableEnd {
            out: other,
            incoming: one,
        };
        (first, second)
    }
}

impl CableEnd {
    /// Plugs the end into a card.
    pub(super) fn plug(&self, bell: &Arc<Bell>) {
        self.out.0.lock().sender = Some(Arc::clone(bell));
        self.incoming.0.lock().receiver = Some(Arc::clone(bell));
    }

    /// Says whether this card receives. One that does not loses what is under way.
    pub(super) fn set_reception(&self, reception: Reception) {
        let mut lane = self.incoming.0.lock();
        lane.reception = reception;
        if reception == Reception::Closed {
            let lost = mem::take(&mut lane.frames);
            lane.spare.extend(lost);
        }
        lane.wake_sender();
    }

    /// How many frames can be sent now, and places for them. `None`, if nobody would receive them.
    pub(super) fn room(&self, spare: &mut Vec<Frame>) -> Option<usize> {
        let mut lane = self.out.0.lock();
        spare.append(&mut lane.spare);
        (lane.reception == Reception::Open).then(|| FRAMES_MAX.saturating_sub(lane.frames.len()))
    }

    /// Sends frames, no more than there was room for.
    pub(super) fn send(&self, frames: &mut VecDeque<Frame>) {
        if frames.is_empty() {
            return;
        }
        let mut lane = self.out.0.lock();
        if lane.reception == Reception::Closed {
            // The receiver has gone since, and its frames go the way of those under way.
            lane.spare.extend(frames.drain(..));
            return;
        }
        lane.frames.append(frames);
        if let Some(bell) = &lane.receiver {
            bell.ring();
        }
    }

    /// Wakes this card when there is room again. False, if there is some already.
    pub(super) fn wait_for_room(&self) -> bool {
        let mut lane = self.out.0.lock();
        let full = lane.reception == Reception::Open && lane.frames.len() >= FRAMES_MAX;
        lane.sender_waits = full;
        full
    }

    /// Takes what has come, and gives back places that are not needed any more.
    pub(super) fn receive(&self, frames: &mut VecDeque<Frame>, spare: &mut Vec<Frame>) {
        let mut lane = self.incoming.0.lock();
        lane.spare.append(spare);
        if lane.frames.is_empty() {
            return;
        }
        frames.append(&mut lane.frames);
        lane.wake_sender();
    }
}

impl State {
    fn wake_sender(&mut self) {
        if mem::take(&mut self.sender_waits)
            && let Some(bell) = &self.sender
        {
            bell.ring();
        }
    }
}

/// An end that is pulled out, or whose card is gone, receives nothing any more.
impl Drop for CableEnd {
    fn drop(&mut self) {
        self.set_reception(Reception::Closed);
    }
}

impl fmt::Debug for CableEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CableEnd").finish_non_exhaustive()
    }
}
