//! A ring in either format, behind one type and without dynamic calls.

use super::area::Host;
use super::chain::Chain;
use super::completion::Completion;
use super::config::{DeviceConfig, NewError};
use super::dirty::DirtyLog;
use super::error::Broken;
use super::memory::Memory;
use super::packed::PackedRing;
use super::pool::{Pool, Unfilled};
use super::split::SplitRing;
use crate::RingState;

/// The device's end of a ring.
pub(super) enum Ring {
    Split(SplitRing),
    Packed(PackedRing),
}

impl Ring {
    pub(super) fn new(config: &DeviceConfig) -> Result<Self, NewError> {
        match config.state {
            RingState::Split { index } => SplitRing::new(config, index).map(Self::Split),
            RingState::Packed { index, wrap } => {
                PackedRing::new(config, index, wrap).map(Self::Packed)
            }
        }
    }

    /// Forgets what was translated.
    pub(super) fn forget(&mut self) {
        match self {
            Self::Split(ring) => ring.forget(),
            Self::Packed(ring) => ring.forget(),
        }
    }

    /// Where the ring stands, if nothing is in flight.
    pub(super) fn state(&self) -> RingState {
        match self {
            Self::Split(ring) => ring.state(),
            Self::Packed(ring) => ring.state(),
        }
    }

    /// Whether something was completed that the driver has not been shown.
    pub(super) fn has_unpublished(&self) -> bool {
        match self {
            Self::Split(ring) => ring.has_unpublished(),
            Self::Packed(ring) => ring.has_unpublished(),
        }
    }

    /// Fills a chain of the pool with the next one, if there is one.
    #[inline]
    pub(super) fn pop<M: Memory>(
        &mut self,
        memory: &M,
        pool: &mut Pool,
    ) -> Result<Option<Chain>, Unfilled> {
        match self {
            Self::Split(ring) => ring.pop(memory, pool),
            Self::Packed(ring) => ring.pop(memory, pool),
        }
    }

    /// Whether the driver offers a chain, as far as one can see without taking it.
    pub(super) fn is_pending<M: Memory>(&mut self, memory: &M) -> Result<bool, Broken> {
        match self {
            Self::Split(ring) => ring.is_pending(memory),
            Self::Packed(ring) => ring.is_pending(memory),
        }
    }

    /// Makes the chain that was taken last, of so many descriptors, the next one to take.
    pub(super) fn put_back(&mut self, descriptors: u16) {
        match self {
            Self::Split(ring) => ring.put_back(),
            Self::Packed(ring) => ring.put_back(descriptors),
        }
    }

    /// Gives a chain back, not yet for the driver to see.
    #[inline(always)]
    pub(super) fn complete<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
        completion: Completion,
    ) -> Result<(), Broken> {
        match self {
            Self::Split(ring) => ring.complete(host, completion),
            Self::Packed(ring) => ring.complete(host, completion),
        }
    }

    /// Shows the driver what was given back.
    #[inline]
    pub(super) fn publish<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
    ) -> Result<(), Broken> {
        match self {
            Self::Split(ring) => ring.publish(host),
            Self::Packed(ring) => ring.publish(host),
        }
    }

    /// Whether the driver wants to hear of what was published since the last call; `None` if that
    /// is nothing.
    #[inline]
    pub(super) fn wants_interrupt<M: Memory>(
        &mut self,
        memory: &M,
    ) -> Result<Option<bool>, Broken> {
        match self {
            Self::Split(ring) => ring.wants_interrupt(memory),
            Self::Packed(ring) => ring.wants_interrupt(memory),
        }
    }

    pub(super) fn enable_notifications<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
    ) -> Result<(), Broken> {
        match self {
            Self::Split(ring) => ring.enable_notifications(host),
            Self::Packed(ring) => ring.enable_notifications(host),
        }
    }

    pub(super) fn disable_notifications<M: Memory, L: DirtyLog>(
        &mut self,
        host: &Host<M, L>,
    ) -> Result<(), Broken> {
        match self {
            Self::Split(ring) => ring.disable_notifications(host),
            Self::Packed(ring) => ring.disable_notifications(host),
        }
    }
}
