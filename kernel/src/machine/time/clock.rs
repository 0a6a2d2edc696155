//! The clock: the time since the kernel's start.

use core::time::Duration;

use spin::Once;

use crate::machine::cpu;
use crate::pure::time::rate::Rate;

static CLOCK: Once<Clock> = Once::new();

struct Clock {
    /// The counter at the kernel's start.
    start: u64,
    rate: Rate,
}

impl Clock {
    fn nanoseconds(&self, tsc: u64) -> u64 {
        self.rate.nanoseconds(tsc.wrapping_sub(self.start))
    }
}

/// Starts the clock. `start` is the time-stamp counter at the kernel's start, `hertz` its rate.
/// Nothing happens if the rate is not plausible.
pub(crate) fn init(start: u64, hertz: u64) {
    if let Some(rate) = Rate::from_hertz(hertz) {
        CLOCK.call_once(|| Clock { start, rate });
    }
}

/// The time since the kernel's start; zero until the clock is there.
pub(crate) fn now() -> Duration {
    Duration::from_nanos(nanoseconds())
}

/// The time at which the time-stamp counter was `tsc`.
pub(crate) fn at(tsc: u64) -> Duration {
    Duration::from_nanos(CLOCK.get().map_or(0, |clock| clock.nanoseconds(tsc)))
}

/// The same as [`now`] in nanoseconds.
pub(super) fn nanoseconds() -> u64 {
    CLOCK.get().map_or(0, |clock| clock.nanoseconds(cpu::tsc()))
}

/// What the time-stamp counter will be at the time `nanoseconds`, or a little later.
pub(super) fn tsc_at(nanoseconds: u64) -> u64 {
    CLOCK.get().map_or(u64::MAX, |clock| {
        // The conversion rounds down, by less than a tick and one part in 2^32.
        let ticks = clock
            .rate
            .ticks(nanoseconds.saturating_add(1 + (nanoseconds >> 31)));
        clock.start.saturating_add(ticks)
    })
}
