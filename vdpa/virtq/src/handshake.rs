//! The handshake by which neither side of a queue misses the other.
//!
//! The driver publishes a chain and then looks whether the device sleeps; the device goes to sleep
//! and then looks whether a chain was published. The same holds the other way for used chains and
//! interrupts. Each side stores, then loads what the other stores, so both need a full barrier in
//! between: without it, both loads may see the past, and both sides wait for ever (VIRTIO 1.2,
//! 2.7.13.4.1 and 2.7.14).

#[cfg(not(all(test, loom)))]
use core::sync::atomic::{Ordering, fence};
#[cfg(all(test, loom))]
use loom::sync::atomic::{Ordering, fence};

/// Publishes, and only then checks.
#[inline]
pub(crate) fn publish_then_check<T>(publish: impl FnOnce(), check: impl FnOnce() -> T) -> T {
    publish();
    fence(Ordering::SeqCst);
    check()
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
