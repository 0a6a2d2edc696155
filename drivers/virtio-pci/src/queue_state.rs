//! What is known of a queue: what it is, what has been set since the last reset, and how far it has
//! been started.

use alloc::sync::Arc;

use vdpa::ops::{NotificationArea, QueueAddress};
use vdpa::platform::Callback;

use super::interrupts::InterruptCounts;

/// What a queue is and what was counted for it, from the probe to the end of the device.
pub(super) struct QueueFacts {
    pub(super) size_max: u16,
    pub(super) notify_off: u16,
    /// The page of its doorbell, if nothing else lies there.
    pub(super) page: Option<NotificationArea>,
    pub(super) interrupts: Arc<InterruptCounts>,
}

#[derive(Clone, Default)]
pub(super) struct QueueState {
    pub(super) callback: Option<Callback>,
    pub(super) size: Option<u16>,
    pub(super) address: Option<QueueAddress>,
    pub(super) phase: Phase,
    /// Where it goes on when it is started.
    pub(super) position: Position,
}

/// Whether the device may use a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody has started it.
    #[default]
    Down,
    /// Started for who looks from above, and to be enabled with `DRIVER_OK`.
    Due,
    Running,
    /// Started for who looks from above, but the device has been told to stop it.
    Halted,
}

/// Where a queue goes on when it is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Position {
    #[default]
    Start,
    /// At this index of the available ring.
    At(u16),
    /// It has run, and only the device may know.
    Unknown,
}

impl QueueState {
    /// Whether it has been told to stop, and nobody has heard yet where it has.
    pub(super) fn is_stopping(&self) -> bool {
        self.phase == Phase::Halted && self.position == Position::Unknown
    }

    /// Whether it does not stand still for certain.
    pub(super) fn is_moving(&self) -> bool {
        self.phase == Phase::Running || self.is_stopping()
    }
}
