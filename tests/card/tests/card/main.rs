//! The card by its registers, against the specifications; no driver takes part.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blk;
mod block;
mod common;
mod configuration;
mod interrupts;
mod misbehaviour;
mod net;
mod slot;
mod strict;
