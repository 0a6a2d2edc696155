//! The vhost shim: opening, requests, memory, teardown, hang-up, and who gets the device.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hang_up;
mod log;
mod memory;
mod opening;
mod owners;
mod requests;
mod rollback;
mod teardown;
mod vrings;
mod world;
