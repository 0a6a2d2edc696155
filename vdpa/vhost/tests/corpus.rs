//! Replays the inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../fuzz/src/lib.rs"]
mod programs;

use std::fs;
use std::path::Path;

#[test]
fn no_hostile_client_harms_anybody_else() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/hostile_client");
    let mut inputs: Vec<_> = fs::read_dir(&corpus)
        .expect("a directory of inputs")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no inputs in {}", corpus.display());
    for input in inputs {
        // Shown if the run panics.
        println!("{}", input.display());
        programs::hostile_client(&fs::read(&input).expect("a readable input"));
    }
}
