//! Interrupt vectors: who is called when which one arrives, and which ones drivers have.

use vdpa::platform::{Callback, InterruptMessage, InterruptVector, NoVector};

use super::apic;
use super::vector_numbers::{FOR_DEVICES, SPURIOUS, TIMER};
use crate::machine::sync::IrqMutex;
use crate::machine::time::timer;

const DEVICE_VECTORS: usize = (*FOR_DEVICES.end() - *FOR_DEVICES.start()) as usize + 1;

/// As many are left to lines by the messages of devices. A device that gets no message does with
/// fewer, or is polled; the console and a device that has no messages have nothing but their line.
const FOR_LINES: usize = 16;

static HANDLERS: [IrqMutex<Option<Callback>>; DEVICE_VECTORS] =
    [const { IrqMutex::new(None) }; DEVICE_VECTORS];

/// A vector that a driver has.
#[derive(Debug)]
pub(crate) struct DeviceVector(u8);

impl DeviceVector {
    /// Takes a free vector for a line and calls `handler` whenever it arrives.
    pub(crate) fn for_line(handler: Callback) -> Result<Self, NoVector> {
        Self::allocate(handler, DEVICE_VECTORS)
    }

    /// The same for a message.
    pub(crate) fn for_message(handler: Callback) -> Result<Self, NoVector> {
        Self::allocate(handler, DEVICE_VECTORS - FOR_LINES)
    }

    /// One of the first `count`.
    fn allocate(handler: Callback, count: usize) -> Result<Self, NoVector> {
        let mut handler = Some(handler);
        for (vector, slot) in FOR_DEVICES.zip(&HANDLERS).take(count) {
            slot.with(|slot| {
                if slot.is_none() {
                    *slot = handler.take();
                }
            });
            if handler.is_none() {
                return Ok(Self(vector));
            }
        }
        Err(NoVector)
    }
}

#[cfg(feature = "iommu")]
impl DeviceVector {
    /// What an IOMMU lets a source raise.
    pub(crate) fn interrupt(&self, level: bool) -> iommu::Interrupt {
        iommu::Interrupt {
            vector: self.0,
            destination: apic::id().into(),
            level,
        }
    }
}

// SAFETY: the message is a store to the local APIC, with a vector that only devices have.
unsafe impl InterruptVector for DeviceVector {
    fn message(&self) -> InterruptMessage {
        apic::message(self.0)
    }
}

impl Drop for DeviceVector {
    fn drop(&mut self) {
        let index = usize::from(self.0 - FOR_DEVICES.start());
        // The handler runs under this lock, so it has ended when the lock is had. What it captured
        // is dropped without the lock.
        let handler = HANDLERS[index].with(Option::take);
        drop(handler);
    }
}

/// Calls the handler of `vector`. Interrupts are off.
pub(super) fn dispatch(vector: u8) {
    match vector {
        SPURIOUS => {}
        TIMER => {
            apic::end_of_interrupt();
            timer::expired();
        }
        _ => {
            let index = usize::from(vector.wrapping_sub(*FOR_DEVICES.start()));
            if let Some(slot) = HANDLERS.get(index) {
                slot.with(|handler| {
                    if let Some(handler) = handler {
                        handler.call();
                    }
                });
            }
            // Not earlier: a line that is active until its device has been asked would interrupt
            // again. Another message that arrived meanwhile is not lost, and is delivered from here
            // on.
            apic::end_of_interrupt();
        }
    }
}
