//! A ring in either format, behind one type and without dynamic calls.

use alloc::sync::Arc;

use super::packed::PackedRing;
use super::ring_config::RingConfig;
use super::split::SplitRing;
use super::{DeviceHold, UsedWatch};
use crate::format::{RingAddresses, RingState};
use crate::{DmaAllocator, DmaError};

/// The driver's end of a ring.
pub(super) enum Ring {
    Split(SplitRing),
    Packed(PackedRing),
}

impl Ring {
    pub(super) fn new(
        config: &RingConfig,
        state: RingState,
        dma: &Arc<dyn DmaAllocator>,
        hold: &Arc<DeviceHold>,
    ) -> Result<Self, DmaError> {
        match state {
            RingState::Split { index } => SplitRing::new(config, index, dma, hold).map(Self::Split),
            RingState::Packed { index, wrap } => {
                PackedRing::new(config, index, wrap, dma, hold).map(Self::Packed)
            }
        }
    }

    pub(super) fn restart(&mut self) {
        match self {
            Self::Split(ring) => ring.restart(0),
            Self::Packed(ring) => ring.restart(0, true),
        }
    }

    /// Goes to the start with nothing in the ring. Chains keep their ids.
    pub(super) fn rewind(&mut self) {
        match self {
            Self::Split(ring) => ring.rewind(0),
            Self::Packed(ring) => ring.rewind(0, true),
        }
    }

    pub(super) fn addresses(&self) -> RingAddresses {
        match self {
            Self::Split(ring) => ring.addresses(),
            Self::Packed(ring) => ring.addresses(),
        }
    }

    pub(super) fn state(&self) -> RingState {
        match self {
            Self::Split(ring) => ring.state(),
            Self::Packed(ring) => ring.state(),
        }
    }

    pub(super) fn place(&self) -> u16 {
        match self {
            Self::Split(ring) => ring.place(),
            Self::Packed(ring) => ring.place(),
        }
    }

    #[inline]
    pub(super) fn has_used(&self) -> bool {
        match self {
            Self::Split(ring) => ring.has_used(),
            Self::Packed(ring) => ring.has_used(),
        }
    }

    pub(super) fn used_watch(&self) -> Option<UsedWatch> {
        match self {
            Self::Split(ring) => Some(ring.used_watch()),
            Self::Packed(_) => None,
        }
    }

    pub(super) fn enable_interrupts(&self) -> bool {
        match self {
            Self::Split(ring) => ring.enable_interrupts(),
            Self::Packed(ring) => ring.enable_interrupts(),
        }
    }

    pub(super) fn disable_interrupts(&self) {
        match self {
            Self::Split(ring) => ring.disable_interrupts(),
            Self::Packed(ring) => ring.disable_interrupts(),
        }
    }
}
