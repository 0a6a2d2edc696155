//! Where a queue lies, and where it stands.

use virtq::{DmaAddr, RingState};

/// Where the three parts of a queue lie, as the device sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueAddress {
    /// Descriptor area.
    pub descriptor: DmaAddr,
    /// Driver area (the available ring of a split queue).
    pub driver: DmaAddr,
    /// Device area (the used ring of a split queue).
    pub device: DmaAddr,
}

/// Where a queue stands: enough to go on with it elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// A split queue: the index in the available ring that the device takes next.
    Split {
        /// Next available index.
        avail_index: u16,
    },
    /// A packed queue: the descriptors that the device takes next and uses next.
    Packed {
        /// Next available descriptor.
        avail_index: u16,
        /// The driver's wrap counter there.
        avail_wrap: bool,
        /// Next used descriptor.
        used_index: u16,
        /// The device's wrap counter there.
        used_wrap: bool,
    },
}

impl QueueState {
    /// Where the ring stands, if nothing is in flight: what a device needs that cannot go on with
    /// what another one has taken.
    #[must_use]
    pub fn at_rest(self) -> Option<RingState> {
        match self {
            Self::Split { avail_index } => Some(RingState::Split { index: avail_index }),
            Self::Packed {
                avail_index,
                avail_wrap,
                used_index,
                used_wrap,
            } => {
                let at_rest = (avail_index, avail_wrap) == (used_index, used_wrap);
                at_rest.then_some(RingState::Packed {
                    index: avail_index,
                    wrap: avail_wrap,
                })
            }
        }
    }
}

/// A queue with nothing in flight.
impl From<RingState> for QueueState {
    fn from(state: RingState) -> Self {
        match state {
            RingState::Split { index } => Self::Split { avail_index: index },
            RingState::Packed { index, wrap } => Self::Packed {
                avail_index: index,
                avail_wrap: wrap,
                used_index: index,
                used_wrap: wrap,
            },
        }
    }
}
