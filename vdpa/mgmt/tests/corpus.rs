//! Replays the inputs of the fuzz targets, without a fuzzer.

#[path = "../fuzz/src/lib.rs"]
mod programs;

use std::fs;
use std::path::Path;

/// The name of a target, and what it does with an input.
type Target = (&'static str, fn(&[u8]));

#[test]
fn no_input_in_the_corpora_breaks_a_promise() {
    let targets: [Target; 2] = [
        ("tool_json", programs::tool_json),
        ("tool_words", programs::tool_words),
    ];
    for (target, run) in targets {
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
}
