//! The driver side of a queue, and the memory under it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod arena;
mod common;
mod concurrency;
mod doorbell;
mod heap_memory;
mod hostile;
mod model;
mod packed;
mod placed;
mod queue;
mod requests;
mod rewind;
mod shared;
mod single;
mod soundness;
mod submit;
mod table;
mod used_watch;
