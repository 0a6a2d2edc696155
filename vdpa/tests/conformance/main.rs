//! The conformance suite over fake devices that must pass it, and over liars that must not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;
mod liar;
mod lies;
mod pages;
mod passing;
mod server;
