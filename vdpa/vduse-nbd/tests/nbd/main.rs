//! A disk on an NBD server as its drivers have it: each request of a virtio disk, both consumers,
//! moves, and servers that die, those that people have among them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod driver;
mod link;
mod motion;
mod real;
mod requests;
#[expect(dead_code, reason = "most lies are for the tests of the client alone")]
#[path = "../../../../drivers/nbd/tests/client/server.rs"]
mod server;
mod world;
