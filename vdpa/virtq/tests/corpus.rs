//! Replays the inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../fuzz/src/lib.rs"]
mod programs;
#[path = "../../../tests/shared/replay.rs"]
mod replay;

use self::replay::replay;

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn no_hostile_device_breaks_a_promise_of_the_driver_side() {
    replay("hostile_device", programs::hostile_device);
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn no_hostile_driver_breaks_a_promise_of_the_device_side() {
    replay("hostile_driver", programs::hostile_driver);
}
