//! Programs that fuzzing writes: a client that asks for what it likes and writes what it likes.
//!
//! An input is a string of bytes without rules, so that every input is a program. A run panics
//! where the side under test breaks a promise. Nothing here depends on a fuzzer: the tests of
//! `vdpa` replay the inputs in `corpus/` with the same code.

mod client;
mod hostile_client;
#[path = "../../../virtq/fuzz/src/input.rs"]
mod input;
mod iotlb_messages;
mod neighbour;
mod requests;
mod rings;
mod world;

pub use hostile_client::hostile_client;
pub use iotlb_messages::iotlb_messages;
