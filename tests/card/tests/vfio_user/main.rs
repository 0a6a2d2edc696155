//! The card as a program: a client on its socket, real rings in shared memory, and clients that
//! mean ill.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose case cannot be set up has failed"
)]

mod client;
mod driver;
mod hostile;
mod options;
mod program;
mod work;
