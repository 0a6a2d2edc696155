//! Replays the inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../fuzz/src/lib.rs"]
mod programs;
#[path = "../../../tests/shared/replay.rs"]
mod replay;

use self::replay::replay;

#[test]
fn no_hostile_client_harms_anybody_else() {
    replay("hostile_client", programs::hostile_client);
}

#[test]
fn what_messages_have_mapped_can_be_taken_away() {
    replay("iotlb_messages", programs::iotlb_messages);
}
