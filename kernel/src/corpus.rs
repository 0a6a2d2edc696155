//! Replays the inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../fuzz/src/programs.rs"]
mod programs;
#[path = "../../tests/shared/replay.rs"]
mod replay;

use self::replay::replay;

#[test]
fn no_input_breaks_a_promise() {
    replay("acpi", programs::acpi);
    replay("command_line", programs::command_line);
    replay("dhcp", programs::dhcp);
    replay("frames", programs::frames);
    replay("memory_map", programs::memory_map);
    replay("start_info", programs::start_info);
}
