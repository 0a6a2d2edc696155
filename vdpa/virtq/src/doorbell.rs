//! How a driver tells a device that a queue holds new buffers.

use alloc::sync::Arc;
use core::fmt;
use core::ptr::NonNull;

use crate::{DoorbellSwitch, Event};

/// What a notification register takes (VIRTIO 1.2, 4.1.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyFormat {
    /// The queue's index, 16 bits.
    Index,
    /// The queue's index, 32 bits (VIRTIO 1.2, 4.2.2).
    WideIndex,
    /// The queue's index and, in the upper 16 bits, where its driver stands: with
    /// `VIRTIO_F_NOTIFICATION_DATA`.
    IndexAndPlace,
}

/// The notification of one queue (VIRTIO 1.2, 2.9): a device register, or an event of a software
/// device.
///
/// Ringing is straight code: no lock, no dynamic call.
#[derive(Clone)]
pub struct Doorbell(Kind);

#[derive(Clone)]
enum Kind {
    Fixed(Target),
    Switched(Arc<DoorbellSwitch>),
}

/// What a doorbell rings in the end.
#[derive(Clone)]
pub(crate) enum Target {
    Register16 {
        register: NonNull<u16>,
        index: u16,
    },
    /// `places` masks what of the place is stored.
    Register32 {
        register: NonNull<u32>,
        index: u16,
        places: u16,
    },
    Event(Arc<Event>),
}

// SAFETY: the register accepts a store from any processor at any time (see `register16`).
unsafe impl Send for Target {}
// SAFETY: as for `Send`; ringing never reads or writes memory.
unsafe impl Sync for Target {}

impl Doorbell {
    /// A doorbell that stores the queue's index into a device register (VIRTIO 1.2, 4.1.5.2).
    ///
    /// # Safety
    /// `register` must be mapped, uncached, aligned and writable for as long as the doorbell or a
    /// clone of it lives, and a store of `index` to it must have no effect on memory safety.
    #[must_use]
    pub unsafe fn register16(register: NonNull<u16>, index: u16) -> Self {
        Self(Kind::Fixed(Target::Register16 { register, index }))
    }

    /// A doorbell that stores the queue's index and where its driver stands into a device register,
    /// as [`NotifyFormat::IndexAndPlace`] says.
    ///
    /// # Safety
    /// As for [`Doorbell::register16`], whatever the place is.
    #[must_use]
    pub unsafe fn register32(register: NonNull<u32>, index: u16) -> Self {
        Self(Kind::Fixed(Target::Register32 {
            register,
            index,
            places: u16::MAX,
        }))
    }

    /// A doorbell that stores the queue's index alone, as [`NotifyFormat::WideIndex`] says.
    ///
    /// # Safety
    /// As for [`Doorbell::register16`].
    #[must_use]
    pub unsafe fn wide_register(register: NonNull<u32>, index: u16) -> Self {
        Self(Kind::Fixed(Target::Register32 {
            register,
            index,
            places: 0,
        }))
    }

    /// A doorbell that raises an event.
    #[must_use]
    pub fn event(event: Arc<Event>) -> Self {
        Self(Kind::Fixed(Target::Event(event)))
    }

    /// A doorbell that rings what the switch is set to.
    #[must_use]
    pub fn switched(switch: &Arc<DoorbellSwitch>) -> Self {
        Self(Kind::Switched(Arc::clone(switch)))
    }

    /// What it rings now.
    #[inline]
    pub(crate) fn target(&self) -> &Target {
        match &self.0 {
            Kind::Fixed(target) => target,
            Kind::Switched(switch) => switch.target(),
        }
    }

    /// Rings. `place` is the queue's [`place`](crate::Queue::place).
    #[inline]
    pub fn ring(&self, place: u16) {
        match self.target() {
            Target::Register16 { register, index } => {
                // SAFETY: the maker of the doorbell has promised what the register is.
                unsafe { register.as_ptr().write_volatile(*index) };
            }
            Target::Register32 {
                register,
                index,
                places,
            } => {
                let value = u32::from(*index) | u32::from(place & places) << 16;
                // SAFETY: the maker of the doorbell has promised what the register is.
                unsafe { register.as_ptr().write_volatile(value) };
            }
            Target::Event(event) => event.raise(),
        }
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        use Target::{Event, Register16, Register32};
        match (self, other) {
            (
                Register16 {
                    register: a,
                    index: i,
                },
                Register16 {
                    register: b,
                    index: j,
                },
            ) => a == b && i == j,
            (
                Register32 {
                    register: a,
                    index: i,
                    places: p,
                },
                Register32 {
                    register: b,
                    index: j,
                    places: q,
                },
            ) => a == b && i == j && p == q,
            (Event(a), Event(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Fixed(target) => write!(f, "Doorbell({target:?})"),
            Kind::Switched(switch) => write!(f, "Doorbell(switched to {:?})", switch.target()),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register16 { register, index } => write!(f, "{register:p} <- {index}"),
            Self::Register32 {
                register, index, ..
            } => write!(f, "{register:p} <- {index}, 32 bits"),
            Self::Event(_) => write!(f, "event"),
        }
    }
}
