//! Time: the clock, which is the processor's time-stamp counter, and the timer that ends a sleep.

pub(crate) mod calibrate;
pub(crate) mod clock;
pub(crate) mod timer;
