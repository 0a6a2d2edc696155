//! A client of network block devices (NBD) without sockets.
//!
//! [`Client`] is given the bytes that a server has sent and says which to send. It negotiates in
//! the fixed newstyle, has many requests in flight, splits them to what the server takes, accepts
//! answers in any order, and goes on after the connection has ended: its user connects again, and
//! what was not answered is sent again. The bytes of requests stay with a [`Store`]; only writes
//! that a server may lose are [kept](Client#writes-and-the-death-of-a-server) here, too.
//!
//! A server is not trusted: what makes no sense ends the connection with an [`Error`], and memory
//! is bounded whatever it sends.
//!
//! Not here: sockets, TLS, time (the user says what time it is), and who the requests are from.
//!
//! Source: the NBD protocol, `doc/proto.md` and `doc/uri.md` of NetworkBlockDevice/nbd.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod backoff;
mod client;
mod command;
mod error;
mod export;
mod handshake;
mod journal;
mod part;
mod ranges;
mod replies;
mod uri;
mod wire;

pub use self::backoff::Backoff;
pub use self::client::{Client, Store, TakenBack};
pub use self::command::{Command, Durability, Holes};
pub use self::error::{Error, RequestError};
pub use self::export::{BlockSizes, Export};
pub use self::uri::{Uri, UriError};
