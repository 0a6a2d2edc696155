//! The client before servers by the protocol, dying ones, and lying ones.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose case cannot be set up has failed"
)]

mod lies;
mod property;
mod server;
mod world;
