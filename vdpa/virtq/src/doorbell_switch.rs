//! What lets a doorbell's target be exchanged while others ring it: for a driver that is moved from
//! one device to another, and keeps the doorbell that it has.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicPtr, Ordering};

use spin::Mutex;

use crate::Doorbell;
use crate::doorbell::Target;

/// Where a [switched](Doorbell::switched) doorbell leads. Ringing through it takes no lock and
/// never waits.
pub struct DoorbellSwitch {
    /// One of `targets`.
    now: AtomicPtr<Target>,
    /// Each target that there has been, once: somebody may be ringing it still.
    targets: Mutex<Vec<Arc<Target>>>,
}

impl DoorbellSwitch {
    /// A switch that is set to what `to` rings.
    #[must_use]
    pub fn new(to: &Doorbell) -> Arc<Self> {
        let first = Arc::new(to.target().clone());
        Arc::new(Self {
            now: AtomicPtr::new(Arc::as_ptr(&first).cast_mut()),
            targets: Mutex::new(Vec::from([first])),
        })
    }

    /// Sets the switch to what `to` rings, for everybody who rings from now on. Who is about to
    /// ring may still reach the old target, so ring the new one afterwards, for whatever that was
    /// for.
    ///
    /// Old targets live as long as the switch.
    pub fn switch(&self, to: &Doorbell) {
        let to = to.target();
        let mut targets = self.targets.lock();
        let target = match targets.iter().find(|target| ***target == *to) {
            Some(known) => Arc::clone(known),
            None => {
                let target = Arc::new(to.clone());
                targets.push(Arc::clone(&target));
                target
            }
        };
        // The target is complete before it can be found.
        self.now
            .store(Arc::as_ptr(&target).cast_mut(), Ordering::Release);
    }

    /// What the switch is set to.
    #[inline]
    pub(crate) fn target(&self) -> &Target {
        let target = self.now.load(Ordering::Acquire);
        // SAFETY: it is one of `targets`, which are never changed and live as long as the switch.
        unsafe { &*target }
    }
}

impl fmt::Debug for DoorbellSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DoorbellSwitch({:?})", self.target())
    }
}
