//! Replays the inputs of the fuzz targets, without a fuzzer.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose case cannot be set up has failed"
)]

#[path = "images/device.rs"]
mod device;
#[path = "../fuzz/src/fat_volume.rs"]
mod fat_volume;
#[path = "../fuzz/src/http_framing.rs"]
mod http_framing;
#[path = "../fuzz/src/http_target.rs"]
mod http_target;
#[path = "../fuzz/src/input.rs"]
mod input;
#[path = "../fuzz/src/partition_table.rs"]
mod partition_table;
#[path = "images/visitor.rs"]
mod visitor;
#[path = "images/volumes.rs"]
mod volumes;

use std::fs;
use std::path::Path;

/// The name of a target, and what it does with an input.
type Target = (&'static str, fn(&[u8]));

#[test]
fn no_input_in_the_corpora_breaks_a_promise() {
    let targets: [Target; 4] = [
        ("fat_volume", fat_volume::fat_volume),
        ("http_framing", http_framing::http_framing),
        ("http_target", http_target::http_target),
        ("partition_table", partition_table::partition_table),
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
