//! A flag that one side raises, from an interrupt handler if need be, and one task waits for.

use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Poll};

use atomic_waker::AtomicWaker;

/// A latched signal with one waiter. Raising it takes no lock and allocates nothing.
#[derive(Debug, Default)]
pub struct Event {
    raised: AtomicBool,
    count: AtomicU64,
    waker: AtomicWaker,
}

impl Event {
    /// An event that has not been raised.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            raised: AtomicBool::new(false),
            count: AtomicU64::new(0),
            waker: AtomicWaker::new(),
        }
    }

    /// Raises the event and wakes its waiter.
    pub fn raise(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.raised.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Takes the event down and says whether it was up.
    #[inline]
    pub fn take(&self) -> bool {
        self.is_raised() && self.raised.swap(false, Ordering::Acquire)
    }

    /// Whether the event is up.
    #[inline]
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }

    /// How often it has been raised since it was made.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Ready, and down again, if the event was up; otherwise `cx` is woken when it is raised.
    pub fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.take() {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        if self.take() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Waits until the event is raised, and takes it down. The latest waiter is the one that is
    /// woken.
    pub async fn wait(&self) {
        poll_fn(|cx| self.poll_wait(cx)).await;
    }
}
