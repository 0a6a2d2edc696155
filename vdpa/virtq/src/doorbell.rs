//! How a driver tells a device that a queue holds new buffers.

use alloc::sync::Arc;
use core::fmt;
use core::ptr::NonNull;

use crate::Event;

/// The notification of one queue (VIRTIO 1.2, 2.9): a device register, or an event of a software device.
///
/// Ringing is straight code: no lock, no dynamic call.
#[derive(Clone)]
pub struct Doorbell(Kind);

#[derive(Clone)]
enum Kind {
    Register16 { register: NonNull<u16>, index: u16 },
    Event(Arc<Event>),
}

// SAFETY: the register accepts a store from any processor at any time (see `register16`).
unsafe impl Send for Doorbell {}
// SAFETY: as for `Send`; ringing never reads or writes memory.
unsafe impl Sync for Doorbell {}

impl Doorbell {
    /// A doorbell that stores the queue's index into a device register (VIRTIO 1.2, 4.1.5.2).
    ///
    /// # Safety
    /// `register` must be mapped, uncached, aligned and writable for as long as the doorbell or a
    /// clone of it lives, and a store of `index` to it must have no effect on memory safety.
    #[must_use]
    pub unsafe fn register16(register: NonNull<u16>, index: u16) -> Self {
        Self(Kind::Register16 { register, index })
    }

    /// A doorbell that raises an event.
    #[must_use]
    pub fn event(event: Arc<Event>) -> Self {
        Self(Kind::Event(event))
    }

    /// Rings.
    #[inline]
    pub fn ring(&self) {
        match &self.0 {
            Kind::Register16 { register, index } => {
                // SAFETY: whoever made the doorbell vouches for the register.
                unsafe { register.as_ptr().write_volatile(*index) };
            }
            Kind::Event(event) => event.raise(),
        }
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Register16 { register, index } => write!(f, "Doorbell({register:p} <- {index})"),
            Kind::Event(_) => write!(f, "Doorbell(event)"),
        }
    }
}
