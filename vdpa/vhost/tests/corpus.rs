//! Replays the inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../fuzz/src/lib.rs"]
mod programs;

use std::fs;
use std::path::Path;

#[test]
fn no_hostile_client_harms_anybody_else() {
    replay("hostile_client", programs::hostile_client);
}

#[test]
fn what_messages_have_mapped_can_be_taken_away() {
    replay("iotlb_messages", programs::iotlb_messages);
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
