//! A client of the Dynamic Host Configuration Protocol (RFC 2131), without a network: what it gets
//! are messages and the time, what it gives are messages and leases.
//!
//! It is here because the clients that there are cannot do what real networks ask for. The socket
//! of `smoltcp` 0.13 forgets its transaction when it asks again, so that a server that is slower
//! than that never reaches it; it takes no router where two are named, reads no routes (option
//! 121), and has no way to confirm a lease after the link was away, so that `embassy-net` drops the
//! address. `edge-dhcp` reads no overloaded and no long options.

mod client;
mod lease;
mod message;
mod step;

pub(crate) use self::client::Client;
pub(crate) use self::message::CLIENT_PORT;
pub(crate) use self::step::{Event, Step};
#[cfg(target_os = "none")]
pub(crate) use self::{lease::Lease, message::SERVER_PORT, step::Datagram};
