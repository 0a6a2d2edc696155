//! What a device side is made from.

use crate::format::SIZE_MAX;
use crate::{RingAddresses, RingFeatures, RingState};

/// How a device side is made: what the driver has set up, and what the device can do.
#[derive(Clone, Copy, Debug)]
pub struct DeviceConfig {
    /// Entries, as negotiated: at most 32768, and a power of two in a split queue.
    pub size: u16,
    /// What was negotiated.
    pub features: RingFeatures,
    /// Where the driver has put the ring.
    pub addresses: RingAddresses,
    /// Where to go on: [`RingState::start`], or what
    /// [`DeviceQueue::state`](super::DeviceQueue::state) has returned before.
    pub state: RingState,
    /// The most segments that a chain may have, and the most entries of an indirect table; not
    /// zero. A driver must not exceed the queue's size (VIRTIO 1.2, 2.7.5.3.1), but Linux does with
    /// indirect tables, where the device type allows it more.
    pub chain_max: u16,
    /// How many chains can be with the device at once; not zero. The queue keeps scratch for
    /// `chain_max` segments of 16 bytes for each.
    pub in_flight_max: u16,
}

/// Why a device side could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NewError {
    /// The size is zero, above 32768, or not a power of two in a split queue.
    #[error("a queue's size must be at most 32768, and a power of two if it is split")]
    BadSize,
    /// A part of the ring is not aligned as VIRTIO 1.2, 2.7 and 2.8.10 demand, or wraps.
    #[error("a part of the ring is misaligned or wraps")]
    BadAddress,
    /// The state is one of the other format, or its index lies outside the ring.
    #[error("the state does not belong to this queue")]
    BadState,
    /// The device can take no chain.
    #[error("a device must take chains of one segment, and one at a time, at least")]
    BadLimit,
}

impl DeviceConfig {
    pub(super) fn check(&self) -> Result<(), NewError> {
        let Self {
            size,
            features,
            state,
            ..
        } = *self;
        if size == 0 || size > SIZE_MAX || !(features.packed || size.is_power_of_two()) {
            return Err(NewError::BadSize);
        }
        match state {
            RingState::Split { .. } if !features.packed => {}
            RingState::Packed { index, .. } if features.packed && index < size => {}
            _ => return Err(NewError::BadState),
        }
        if self.chain_max == 0 || self.in_flight_max == 0 {
            return Err(NewError::BadLimit);
        }
        Ok(())
    }
}
