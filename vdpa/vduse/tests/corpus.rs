//! Replays the inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../fuzz/src/lib.rs"]
mod programs;
#[path = "../../../tests/shared/replay.rs"]
mod replay;

use self::replay::replay;

#[test]
fn a_hostile_task_loses_and_doubles_no_request() {
    replay("hostile_task", programs::hostile_task);
}

#[test]
fn a_hostile_task_and_a_hostile_client_harm_nobody_else() {
    replay("hostile_pair", programs::hostile_pair);
}
