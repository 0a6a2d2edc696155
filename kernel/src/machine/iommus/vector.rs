//! An interrupt vector that one device may raise.

use alloc::boxed::Box;

use iommu::RemappedInterrupt;
use vdpa::platform::{InterruptMessage, InterruptVector};

use crate::machine::interrupts::vectors::DeviceVector;

/// A vector that one device may raise. The IOMMU has forgotten it before it is free.
#[derive(Debug)]
pub(super) struct RemappedVector {
    // Dropped in this order.
    entry: Box<dyn RemappedInterrupt>,
    _vector: DeviceVector,
}

impl RemappedVector {
    pub(super) fn new(entry: Box<dyn RemappedInterrupt>, vector: DeviceVector) -> Self {
        Self {
            entry,
            _vector: vector,
        }
    }
}

// SAFETY: the IOMMU raises the vector for the message, and nothing after the entry is gone.
unsafe impl InterruptVector for RemappedVector {
    fn message(&self) -> InterruptMessage {
        self.entry.message()
    }
}
