//! The timer: it wakes tasks that wait for a time. `embassy-time` runs on it.

use core::cell::RefCell;
use core::task::Waker;

use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::{Driver, time_driver_impl};
use embassy_time_queue_utils::Queue;
use spin::Once;
use x86_64::registers::model_specific::Msr;

use super::clock;
use crate::machine::cpu;
use crate::machine::interrupts::apic::{self, TimerMode};
use crate::machine::interrupts::vector_numbers;
use crate::pure::time::rate::Rate;

const IA32_TSC_DEADLINE: u32 = 0x6e0;

/// How the next interrupt is asked for.
enum Alarm {
    /// The processor compares its time-stamp counter.
    TscDeadline,
    /// The local APIC counts down at this rate.
    OneShot(Rate),
}

struct Timer {
    alarm: Once<Alarm>,
    queue: Mutex<RefCell<Queue>>,
}

time_driver_impl!(static TIMER: Timer = Timer {
    alarm: Once::new(),
    queue: Mutex::new(RefCell::new(Queue::new())),
});

/// Makes the timer ready. `apic_hertz` is the rate of the local APIC's timer.
pub(crate) fn init(apic_hertz: u64) {
    let deadline = cpu::has_tsc_deadline();
    let mode = if deadline {
        TimerMode::TscDeadline
    } else {
        TimerMode::OneShot
    };
    apic::set_timer(mode, vector_numbers::TIMER);
    if deadline {
        TIMER.alarm.call_once(|| Alarm::TscDeadline);
    } else if let Some(rate) = Rate::from_hertz(apic_hertz) {
        TIMER.alarm.call_once(|| Alarm::OneShot(rate));
    }
    critical_section::with(|section| TIMER.wake_due(section));
}

/// The timer's interrupt has arrived.
pub(crate) fn expired() {
    critical_section::with(|section| TIMER.wake_due(section));
}

impl Timer {
    /// Wakes the tasks that have waited long enough, and asks for an interrupt at the next time a
    /// task waits for.
    fn wake_due(&self, section: CriticalSection<'_>) {
        let mut queue = self.queue.borrow(section).borrow_mut();
        let next = queue.next_expiration(clock::nanoseconds());
        match self.alarm.get() {
            Some(Alarm::TscDeadline) => {
                // A deadline in the past raises the interrupt at once, and zero asks for none.
                let deadline = if next == u64::MAX {
                    0
                } else {
                    clock::tsc_at(next)
                };
                // SAFETY: the processor has the register, and writing it affects no memory.
                unsafe { Msr::new(IA32_TSC_DEADLINE).write(deadline) };
            }
            Some(Alarm::OneShot(rate)) => {
                let count = if next == u64::MAX {
                    0
                } else {
                    let remaining = next.saturating_sub(clock::nanoseconds());
                    // An interrupt that comes early, because the count has 32 bits, is asked for
                    // again.
                    u32::try_from(rate.ticks(remaining))
                        .unwrap_or(u32::MAX)
                        .saturating_add(1)
                };
                apic::start_timer(count);
            }
            None => {}
        }
    }
}

impl Driver for Timer {
    fn now(&self) -> u64 {
        clock::nanoseconds()
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|section| {
            let earlier = self
                .queue
                .borrow(section)
                .borrow_mut()
                .schedule_wake(at, waker);
            if earlier {
                self.wake_due(section);
            }
        });
    }
}
