//! Devices that are moved, suspended and taken away while the net and blk drivers work, over vDPA
//! and over vhost.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blk;
mod client;
mod control;
mod failures;
mod net;
mod old_hardware;
mod power;
mod slow_disk;
mod traffic;
mod world;
mod writers;
