//! What a client wants done, and what it has learnt.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use super::lease::{Flaw, Lease, Refusal};

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This is to be sent.
    Send(Datagram),
    /// The address may not be used any more.
    Lost(Loss),
    /// An offer came to nothing.
    Refused(Refusal),
    /// Nothing, before this time if there is one.
    Wait(Option<Duration>),
}

/// A message from the client's port to the servers' port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// The message.
    pub(crate) bytes: Vec<u8>,
    /// Where it comes from: no address, as long as the client has none.
    pub(crate) source: Ipv4Addr,
    /// One server, or everybody.
    pub(crate) destination: Ipv4Addr,
}

/// What a message has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// There is a lease, and how it differs from the one before.
    Bound {
        /// The lease.
        lease: Lease,
        /// What of it is not used.
        flaw: Option<Flaw>,
        /// Whether the stack has to be configured anew.
        changed: bool,
    },
    /// An offer is not taken. The client goes on.
    Refused(Refusal),
    /// The address may not be used any more.
    Lost(Loss),
}

/// Why an address may not be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Loss {
    /// Its time is over.
    #[error("the lease has ended")]
    Expired,
    /// The server says so.
    #[error("the server wants it back (NAK)")]
    Withdrawn,
}
