//! How a driver tells a device that a queue holds new buffers, and the handshake by which neither
//! side misses the other.
//!
//! The driver publishes a chain and then looks whether the device sleeps; the device goes to sleep
//! and then looks whether a chain was published. The same holds the other way for used chains and
//! interrupts. Each side stores, then loads what the other stores, so both need a full barrier in
//! between: without it, both loads may see the past, and both sides wait for ever (VIRTIO 1.2,
//! 2.7.13.4.1 and 2.7.14).

use alloc::sync::Arc;
use core::fmt;
use core::ptr::NonNull;
#[cfg(not(all(test, loom)))]
use core::sync::atomic::{Ordering, fence};
#[cfg(all(test, loom))]
use loom::sync::atomic::{Ordering, fence};

use crate::{DoorbellSwitch, Event};

/// Publishes, and only then checks.
#[inline]
pub(crate) fn publish_then_check<T>(publish: impl FnOnce(), check: impl FnOnce() -> T) -> T {
    publish();
    fence(Ordering::SeqCst);
    check()
}

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

#[cfg(all(test, loom))]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU16, Ordering};
    use loom::thread;

    use super::publish_then_check;
    use crate::format::crossed;

    /// A driver that publishes one chain and a device that goes to sleep, by index.
    #[test]
    fn a_chain_is_seen_or_its_publisher_notifies() {
        loom::model(|| {
            let avail_index = Arc::new(AtomicU16::new(0));
            // The device is awake: it wants no notification of the chain at index 0.
            let avail_event = Arc::new(AtomicU16::new(u16::MAX));
            let (index, event) = (Arc::clone(&avail_index), Arc::clone(&avail_event));
            let driver = thread::spawn(move || {
                publish_then_check(
                    || index.store(1, Ordering::Release),
                    || crossed(event.load(Ordering::Relaxed), 0, 1),
                )
            });
            let seen = publish_then_check(
                || avail_event.store(0, Ordering::Relaxed),
                || avail_index.load(Ordering::Acquire) == 1,
            );
            let notified = driver.join().expect("the driver does not panic");
            assert!(seen || notified, "the device sleeps and nobody wakes it");
        });
    }

    /// A device that uses one chain and a driver that goes to sleep, by flag.
    #[test]
    fn a_used_chain_is_seen_or_its_user_interrupts() {
        loom::model(|| {
            let used_index = Arc::new(AtomicU16::new(0));
            let no_interrupt = Arc::new(AtomicU16::new(1));
            let (index, flag) = (Arc::clone(&used_index), Arc::clone(&no_interrupt));
            let device = thread::spawn(move || {
                publish_then_check(
                    || index.store(1, Ordering::Release),
                    || flag.load(Ordering::Relaxed) == 0,
                )
            });
            let seen = publish_then_check(
                || no_interrupt.store(0, Ordering::Relaxed),
                || used_index.load(Ordering::Acquire) == 1,
            );
            let interrupted = device.join().expect("the device does not panic");
            assert!(seen || interrupted, "the driver sleeps and nobody wakes it");
        });
    }
}
