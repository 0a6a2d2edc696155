//! Time: the clock, which is the processor's time-stamp counter, and the timer that ends a sleep.

#[cfg(target_os = "none")]
pub(crate) mod calibrate;
#[cfg(target_os = "none")]
pub(crate) mod clock;
mod rate;
mod reference;
#[cfg(target_os = "none")]
pub(crate) mod timer;
