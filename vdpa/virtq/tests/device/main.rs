//! The device side of a queue, over memory as devices see it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod basics;
mod common;
mod malformed;
mod malformed_packed;
mod malformed_split;
mod memory;
mod model;
mod notify;
mod over_tlb;
mod state;
mod table;
mod tlb;
mod with_driver;
