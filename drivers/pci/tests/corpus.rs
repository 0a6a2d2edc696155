//! Replays the inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../fuzz/src/lib.rs"]
mod programs;

use std::fs;
use std::path::Path;

#[test]
fn no_configuration_space_breaks_a_promise() {
    replay("configuration_space", programs::configuration_space);
}

#[test]
fn no_registers_break_a_promise() {
    replay("registers", programs::registers);
}

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut inputs: Vec<_> = fs::read_dir(&corpus)
        .expect("a directory of inputs")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no inputs in {}", corpus.display());
    for input in inputs {
        // Shown if the run panics.
        println!("{}", input.display());
        run(&fs::read(&input).expect("a readable input"));
    }
}
