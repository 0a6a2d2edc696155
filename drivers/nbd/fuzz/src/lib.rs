//! Programs that fuzzing writes: a server of NBD that says what it likes, over one connection after
//! the other, to a client with requests in flight.
//!
//! An input is a string of bytes without rules, so that every input is a program. A run panics
//! where the client breaks a promise. Nothing here depends on a fuzzer: the tests of `nbd-client`
//! replay the inputs in `corpus/` with the same code.

mod answers;
mod books;
mod hostile_server;
#[path = "../../../../vdpa/virtq/fuzz/src/input.rs"]
mod input;
mod line;

pub use hostile_server::hostile_server;
