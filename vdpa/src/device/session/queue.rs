//! How far one queue has been set up.

use crate::ops::{OpError, QueueAddress, QueueState};

/// What a consumer has said about a queue since the device was reset.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QueueSetup {
    size: Option<u16>,
    address: Option<QueueAddress>,
    /// Where it starts, if not at the beginning.
    state: Option<QueueState>,
    /// The device may be using it.
    ready: bool,
    /// The device has shown that it can stop with this queue alone.
    stopped_alone: bool,
}

/// What a queue has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::device) enum Ready {
    /// The device may use it.
    Yes,
    /// The device does not use it, and never began to.
    No,
    /// The device has been told to stop, and has done so.
    Stopped,
}

impl QueueSetup {
    pub(super) fn size(&self) -> Option<u16> {
        self.size
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether it may start again although the device runs (VIRTIO 1.2, 2.6.1.2).
    pub(super) fn was_stopped_alone(&self) -> bool {
        self.stopped_alone
    }

    /// Whether the state lies inside the queue, as far as its size is known.
    pub(super) fn can_start_at(&self, state: QueueState) -> bool {
        match (state, self.size) {
            (QueueState::Split { .. }, _) => true,
            (
                QueueState::Packed {
                    avail_index,
                    used_index,
                    ..
                },
                size,
            ) => avail_index.max(used_index) < size.unwrap_or(1 << 15),
        }
    }

    /// Where it lies, as far as that has been said.
    pub(super) fn address(&self) -> Option<QueueAddress> {
        self.address
    }

    /// Whether everything has been said that the device needs to know.
    pub(super) fn check_complete(&self) -> Result<(), OpError> {
        if self.size.is_none() || self.address.is_none() {
            return Err(OpError::WrongState);
        }
        if self.state.is_none_or(|state| self.can_start_at(state)) {
            Ok(())
        } else {
            Err(OpError::Invalid)
        }
    }

    pub(super) fn set_size(&mut self, size: u16) {
        self.size = Some(size);
    }

    pub(super) fn set_address(&mut self, address: QueueAddress) {
        self.address = Some(address);
    }

    pub(super) fn set_state(&mut self, state: QueueState) {
        self.state = Some(state);
    }

    pub(super) fn set_ready(&mut self, ready: Ready) {
        self.ready = ready == Ready::Yes;
        if ready == Ready::Stopped {
            self.stopped_alone = true;
            self.state = None;
        }
    }
}
