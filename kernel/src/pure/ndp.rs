//! Neighbor discovery (RFC 4861) as far as a host needs it to configure itself (RFC 4862), without
//! a network: what it gets are frames and the time, what it gives are frames and a configuration.
//!
//! It is here because what there is cannot do what real networks ask for. `smoltcp` 0.13 tries no
//! address before it uses it, is silent when another host tries one that it has, reads one prefix
//! of an advertisement and the lifetimes of none after the first, no router preference and no name
//! servers; its first solicitation goes out while the link may be down, the last after eight
//! seconds. Only the resolution of neighbors is left to it.

mod autoconf;
mod message;

#[cfg(target_os = "none")]
pub(crate) use self::autoconf::{Autoconf, Configuration, Step};
