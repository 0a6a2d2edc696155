//! Replays the corpus of a fuzz target, without a fuzzer.
//!
//! It is a module of the tests of each crate with such targets, also of those that are below all
//! others, and of one without the standard library's prelude.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Runs a target of the crate's fuzz targets with every input that is kept for it.
pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let inputs: BTreeSet<_> = fs::read_dir(&corpus)
        .expect("a directory of inputs")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(!inputs.is_empty(), "no inputs in {}", corpus.display());
    for input in inputs {
        // Shown if the run panics.
        std::println!("{}", input.display());
        run(&fs::read(&input).expect("a readable input"));
    }
}
