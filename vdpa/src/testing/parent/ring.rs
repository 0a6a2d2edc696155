//! The device side of a queue of either format.

use alloc::sync::Arc;
use alloc::vec::Vec;

use virtq::testing::{DeviceRing, HeapDma, PackedDevice, Request};
use virtq::{RingAddresses, RingFeatures};

use crate::ops::QueueState;

#[derive(Debug)]
pub(super) enum Ring {
    Split(DeviceRing),
    Packed(PackedDevice),
}

impl Ring {
    /// A device side that goes on at `state`, or starts.
    pub(super) fn new(
        heap: &Arc<HeapDma>,
        addresses: RingAddresses,
        size: u16,
        features: RingFeatures,
        state: Option<QueueState>,
    ) -> Self {
        match state {
            _ if !features.packed => {
                let index = match state {
                    Some(QueueState::Split { avail_index }) => avail_index,
                    _ => 0,
                };
                Self::Split(DeviceRing::at(heap, addresses, size, features, index))
            }
            // Nothing is in flight, so the places of available and of used descriptors are the
            // same.
            Some(QueueState::Packed {
                used_index,
                used_wrap,
                ..
            }) => {
                let place = (used_index, used_wrap);
                Self::Packed(PackedDevice::at(heap, addresses, size, features, place))
            }
            _ => Self::Packed(PackedDevice::new(heap, addresses, size, features)),
        }
    }

    pub(super) fn state(&self) -> QueueState {
        match self {
            Self::Split(ring) => ring.state().into(),
            Self::Packed(ring) => ring.state().into(),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Request> {
        match self {
            Self::Split(ring) => ring.pop(),
            Self::Packed(ring) => ring.pop(),
        }
    }

    pub(super) fn read(&self, request: &Request) -> Vec<u8> {
        match self {
            Self::Split(ring) => ring.read(request),
            Self::Packed(ring) => ring.read(request),
        }
    }

    /// Puts `bytes` into what the driver lets the device write.
    pub(super) fn write(&self, request: &Request, bytes: &[u8]) {
        match self {
            Self::Split(ring) => ring.write(request, 0, bytes),
            Self::Packed(ring) => ring.write(request, 0, bytes),
        }
    }

    /// Returns a chain of which so many bytes were written.
    pub(super) fn finish(&mut self, request: &Request, written: usize) {
        let written = u32::try_from(written).expect("a test's answer is short");
        match self {
            Self::Split(ring) => ring.finish(request, written),
            Self::Packed(ring) => ring.finish(request, written),
        }
    }

    pub(super) fn wants_interrupt(&mut self) -> bool {
        match self {
            Self::Split(ring) => ring.wants_interrupt(),
            Self::Packed(ring) => ring.wants_interrupt(),
        }
    }
}
