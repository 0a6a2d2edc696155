//! A lock for state that interrupt handlers use too, and the critical sections of other crates.

use core::fmt;

use critical_section::RawRestoreState;
use x86_64::instructions::interrupts;

/// A spin lock that is held with interrupts off, so that no handler on the same processor can wait
/// for it for ever.
pub struct IrqMutex<T>(spin::Mutex<T>);

impl<T> IrqMutex<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(spin::Mutex::new(value))
    }

    /// Calls `work` with the value, interrupts off. `work` must be short and must not take the same
    /// lock again.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        interrupts::without_interrupts(|| work(&mut self.0.lock()))
    }

    /// Opens the lock, even if it is held.
    ///
    /// # Safety
    /// The holder, if there is one, does not run again.
    pub unsafe fn force_unlock(&self) {
        if self.0.is_locked() {
            // SAFETY: passed on to the caller.
            unsafe { self.0.force_unlock() };
        }
    }
}

impl<T> fmt::Debug for IrqMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IrqMutex")
    }
}

/// The critical section of a kernel on one processor: interrupts off.
struct SingleProcessor;
critical_section::set_impl!(SingleProcessor);

// SAFETY: with interrupts off nothing else runs on the only processor, and the state from before is
// put back at the end.
unsafe impl critical_section::Impl for SingleProcessor {
    unsafe fn acquire() -> RawRestoreState {
        let enabled = interrupts::are_enabled();
        interrupts::disable();
        enabled
    }

    unsafe fn release(enabled: RawRestoreState) {
        if enabled {
            interrupts::enable();
        }
    }
}
