//! Programs that fuzzing writes: a task that does to its device what it likes, dies and comes back,
//! and answers what it likes, while a driver uses the device.
//!
//! An input is a string of bytes without rules, so that every input is a program. A run panics
//! where the side under test breaks a promise. Nothing here depends on a fuzzer: the tests of
//! `vdpa-vduse` replay the inputs in `corpus/` with the same code.

mod books;
#[path = "../../../vhost/fuzz/src/client.rs"]
mod client;
mod driver;
mod hostile_pair;
mod hostile_task;
#[path = "../../../virtq/fuzz/src/input.rs"]
mod input;
#[path = "../../../vhost/fuzz/src/requests.rs"]
mod requests;
#[path = "../../../vhost/fuzz/src/rings.rs"]
mod rings;
mod task;
mod world;

pub use hostile_pair::hostile_pair;
pub use hostile_task::hostile_task;
