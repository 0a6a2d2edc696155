//! Replays the inputs of the fuzz targets, without a fuzzer.

#[path = "../fuzz/src/lib.rs"]
mod programs;
#[path = "../../../tests/shared/replay.rs"]
mod replay;

use self::replay::replay;

#[test]
fn no_input_in_the_corpora_breaks_a_promise() {
    replay("tool_json", programs::tool_json);
    replay("tool_words", programs::tool_words);
}
