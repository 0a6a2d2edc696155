//! What goes wrong in a simulated device: nothing, without the Cargo feature `faults`.

use core::time::Duration;

/// No faults.
#[derive(Clone, Debug)]
pub(super) struct Plan;

impl Plan {
    pub(super) fn is_armed(&self) -> bool {
        false
    }

    pub(super) fn takes_creation(&self) -> bool {
        false
    }

    pub(super) fn takes_map(&self) -> bool {
        false
    }

    pub(super) fn delay(&self) -> Duration {
        Duration::ZERO
    }

    pub(super) fn takes_reset(&self) -> bool {
        false
    }

    pub(super) fn takes_write(&self) -> bool {
        false
    }

    pub(super) fn takes_kick(&self) -> bool {
        false
    }

    pub(super) fn takes_interrupt(&self) -> bool {
        false
    }
}
