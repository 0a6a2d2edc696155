//! Where drivers leave the devices that they have made, and where applications take them.
//!
//! A registry hands each device to one taker. It is not the device tree: what is taken is no longer
//! listed here.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::mem;
use core::task::{Context, Poll, Waker};

use spin::Mutex;
use vdpa::ids::{IdAllocator, IdGuard, OutOfIds};

/// Devices of one kind that wait for somebody to use them, first come first served.
pub struct Registry<T> {
    /// The numbers in the devices' names, for as long as somebody holds the device.
    numbers: Arc<IdAllocator>,
    state: Mutex<State<T>>,
}

struct State<T> {
    ready: VecDeque<(String, T)>,
    waiting: Vec<Waker>,
}

impl<T> Registry<T> {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let state = State {
            ready: VecDeque::new(),
            waiting: Vec::new(),
        };
        Arc::new(Self {
            numbers: IdAllocator::new(u32::MAX),
            state: Mutex::new(state),
        })
    }

    /// Offers a device, and wakes everybody who waits for one.
    pub fn publish(&self, name: &str, device: T) {
        let waiting = {
            let mut state = self.state.lock();
            state.ready.push_back((name.to_string(), device));
            mem::take(&mut state.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }

    /// Takes the device that was published first, if one is left.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.state
            .lock()
            .ready
            .pop_front()
            .map(|(_, device)| device)
    }

    /// Takes the device of this name, if nobody has taken it: to use it, or because it is going
    /// away.
    #[must_use]
    pub fn take_named(&self, name: &str) -> Option<T> {
        let mut state = self.state.lock();
        let index = state.ready.iter().position(|(ready, _)| ready == name)?;
        state.ready.remove(index).map(|(_, device)| device)
    }

    /// Takes the next device, and waits for one if none is left.
    pub async fn next(&self) -> T {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Takes the next device; if none is left, `cx` is woken when there is one.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = self.state.lock();
        if let Some((_, device)) = state.ready.pop_front() {
            return Poll::Ready(device);
        }
        if !state
            .waiting
            .iter()
            .any(|waker| waker.will_wake(cx.waker()))
        {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The devices that nobody has taken.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state
            .lock()
            .ready
            .iter()
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// A number for the name of a new device. The device must keep the guard.
    ///
    /// # Errors
    /// [`OutOfIds`].
    pub fn allocate_number(&self) -> Result<IdGuard, OutOfIds> {
        self.numbers.allocate()
    }
}

impl<T> fmt::Debug for Registry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use core::pin::pin;

    use super::*;

    #[test]
    fn devices_come_out_in_the_order_they_went_in() {
        let registry = Registry::new();
        registry.publish("net0", 0);
        registry.publish("net1", 1);
        assert_eq!(registry.names(), ["net0", "net1"]);
        assert_eq!(registry.take(), Some(0));
        assert_eq!(registry.names(), ["net1"]);
        assert_eq!(registry.take(), Some(1));
        assert_eq!(registry.take(), None);
    }

    #[test]
    fn next_waits_for_a_device() {
        let registry = Registry::new();
        let mut next = pin!(registry.next());
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(next.as_mut().poll(&mut cx), Poll::Pending);
        registry.publish("blk0", 7);
        assert_eq!(next.as_mut().poll(&mut cx), Poll::Ready(7));
    }

    #[test]
    fn a_device_is_taken_by_its_name() {
        let registry = Registry::new();
        registry.publish("blk0", 7);
        registry.publish("blk1", 8);
        assert_eq!(registry.take_named("blk1"), Some(8));
        assert_eq!(registry.take_named("blk1"), None);
        assert_eq!(registry.names(), ["blk0"]);
    }

    #[test]
    fn a_device_that_was_taken_cannot_be_withdrawn() {
        let registry = Registry::new();
        registry.publish("blk0", 7);
        registry.publish("blk1", 8);
        assert_eq!(registry.take_named("blk1"), Some(8));
        assert_eq!(registry.take(), Some(7));
        assert_eq!(registry.take_named("blk0"), None);
    }
}
