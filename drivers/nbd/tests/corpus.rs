//! Replays the inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../fuzz/src/lib.rs"]
mod programs;
#[path = "../../../tests/shared/replay.rs"]
mod replay;

use self::replay::replay;

#[test]
fn a_hostile_server_harms_no_request_and_lets_nobody_wait_for_ever() {
    replay("hostile_server", programs::hostile_server);
}
