//! The callbacks that a change of the state asks for, until the lock has been let go.

use alloc::vec::Vec;

use vdpa::platform::Callback;

/// Callbacks in the order in which they are to be called. One of them, which is what a queue that
/// was served asks for, takes no memory.
#[derive(Default)]
pub(super) struct Signals {
    first: Option<Callback>,
    more: Vec<Callback>,
}

impl Signals {
    /// One more, if there is one.
    #[inline]
    pub(super) fn add(&mut self, callback: Option<&Callback>) {
        let Some(callback) = callback else { return };
        if self.first.is_none() {
            self.first = Some(callback.clone());
        } else {
            self.more.push(callback.clone());
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Calls them all.
    #[inline]
    pub(super) fn call(&self) {
        let callbacks = self.first.iter().chain(&self.more);
        callbacks.for_each(Callback::call);
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use std::sync::Mutex;
    use std::vec;

    use super::*;

    #[test]
    fn all_are_called_in_order() {
        let called = Arc::new(Mutex::new(Vec::new()));
        let callback = |number| {
            let called = Arc::clone(&called);
            Callback::new(move || called.lock().unwrap().push(number))
        };
        let mut signals = Signals::default();
        signals.add(None);
        assert!(signals.is_empty());
        for number in 0..3 {
            signals.add(Some(&callback(number)));
        }
        assert!(!signals.is_empty());
        signals.call();
        assert_eq!(*called.lock().unwrap(), vec![0, 1, 2]);
    }
}
