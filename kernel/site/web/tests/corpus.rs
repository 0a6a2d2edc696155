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
#[path = "../../../../tests/shared/replay.rs"]
mod replay;
#[path = "images/visitor.rs"]
mod visitor;
#[path = "images/volumes.rs"]
mod volumes;

use self::replay::replay;

#[test]
fn no_input_in_the_corpora_breaks_a_promise() {
    replay("fat_volume", fat_volume::fat_volume);
    replay("http_framing", http_framing::http_framing);
    replay("http_target", http_target::http_target);
    replay("partition_table", partition_table::partition_table);
}
