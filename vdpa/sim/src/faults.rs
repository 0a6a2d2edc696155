//! What goes wrong in a simulated device when a test, or an operator, wants to see how the rest
//! takes it.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use spin::Mutex;

/// The faults as devices have them.
pub(super) type Plan = Arc<Faults>;

/// The faults of one device, or of several that share them. None at first.
///
/// Whatever happens "for so many" times is gone afterwards; a new order replaces what is left of
/// the old one.
#[derive(Debug, Default)]
pub struct Faults {
    /// Whether the data path must look at the plan.
    armed: AtomicBool,
    plan: Mutex<Orders>,
}

#[derive(Debug, Default)]
struct Orders {
    /// How many steps, or changes, succeed before one fails.
    creation: Option<u32>,
    map: Option<u32>,
    delay: Duration,
    refused_resets: u32,
    short_writes: u32,
    dropped_kicks: u32,
    spurious_interrupts: u32,
}

impl Faults {
    /// The step of making a device that comes after `skip` others fails for lack of memory.
    pub fn fail_creation(&self, skip: u32) {
        self.change(|plan| plan.creation = Some(skip));
    }

    /// The change of the mappings that comes after `skip` others fails for lack of room.
    pub fn fail_map(&self, skip: u32) {
        self.change(|plan| plan.map = Some(skip));
    }

    /// From now on completions are shown to the driver so much later than they happen.
    pub fn delay_completions(&self, delay: Duration) {
        self.change(|plan| plan.delay = delay);
    }

    /// The device does not come out of reset for so many times, and goes on as before.
    pub fn refuse_resets(&self, count: u32) {
        self.change(|plan| plan.refused_resets = count);
    }

    /// For so many buffers the device claims to have written a byte less than it did.
    pub fn shorten_writes(&self, count: u32) {
        self.change(|plan| plan.short_writes = count);
    }

    /// The device does not hear the next notifications, so many of them.
    pub fn drop_kicks(&self, count: u32) {
        self.change(|plan| plan.dropped_kicks = count);
    }

    /// For so many times that the device has looked at its queues, it raises the interrupts of all
    /// of them.
    pub fn interrupt_spuriously(&self, count: u32) {
        self.change(|plan| plan.spurious_interrupts = count);
    }

    /// Whether anything of what follows can answer differently from normal.
    #[inline]
    pub(super) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    pub(super) fn takes_creation(&self) -> bool {
        let mut plan = self.plan.lock();
        due(&mut plan.creation)
    }

    pub(super) fn takes_map(&self) -> bool {
        let mut plan = self.plan.lock();
        due(&mut plan.map)
    }

    pub(super) fn delay(&self) -> Duration {
        self.plan.lock().delay
    }

    pub(super) fn takes_reset(&self) -> bool {
        self.take(|plan| &mut plan.refused_resets)
    }

    pub(super) fn takes_write(&self) -> bool {
        self.take(|plan| &mut plan.short_writes)
    }

    pub(super) fn takes_kick(&self) -> bool {
        self.take(|plan| &mut plan.dropped_kicks)
    }

    pub(super) fn takes_interrupt(&self) -> bool {
        self.take(|plan| &mut plan.spurious_interrupts)
    }

    fn change(&self, change: impl FnOnce(&mut Orders)) {
        let mut plan = self.plan.lock();
        change(&mut plan);
        self.armed.store(plan.is_armed(), Ordering::Relaxed);
    }

    #[inline]
    fn take(&self, count: impl FnOnce(&mut Orders) -> &mut u32) -> bool {
        if !self.is_armed() {
            return false;
        }
        let mut plan = self.plan.lock();
        let count = count(&mut plan);
        let taken = *count > 0;
        *count = count.saturating_sub(1);
        self.armed.store(plan.is_armed(), Ordering::Relaxed);
        taken
    }
}

impl Orders {
    fn is_armed(&self) -> bool {
        let counts = [
            self.refused_resets,
            self.short_writes,
            self.dropped_kicks,
            self.spurious_interrupts,
        ];
        !self.delay.is_zero() || counts.iter().any(|count| *count > 0)
    }
}

/// Counts down, and says whether this is the one that fails.
fn due(left: &mut Option<u32>) -> bool {
    match left {
        Some(0) => {
            *left = None;
            true
        }
        Some(count) => {
            *count -= 1;
            false
        }
        None => false,
    }
}
