//! Replays the inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../fuzz/src/lib.rs"]
mod programs;
#[path = "../../../tests/shared/replay.rs"]
mod replay;

use self::replay::replay;

#[test]
fn no_configuration_space_breaks_a_promise() {
    replay("configuration_space", programs::configuration_space);
}

#[test]
fn no_registers_break_a_promise() {
    replay("registers", programs::registers);
}
