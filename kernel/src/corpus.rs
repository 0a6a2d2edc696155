//! Replays the inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../fuzz/src/programs.rs"]
mod programs;

use std::format;
use std::fs;
use std::path::Path;
use std::vec::Vec;

#[test]
fn no_input_breaks_a_promise() {
    replay("acpi", programs::acpi);
    replay("command_line", programs::command_line);
    replay("dhcp", programs::dhcp);
    replay("frames", programs::frames);
    replay("memory_map", programs::memory_map);
}

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/corpus/{target}"));
    let entries = fs::read_dir(&folder).expect("a directory of inputs");
    let mut inputs: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no inputs in {}", folder.display());
    for input in inputs {
        // Shown if the run panics.
        std::println!("{}", input.display());
        run(&fs::read(&input).expect("a readable input"));
    }
}
