//! What a server offers, as far as it can be used.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use super::message::{Reply, address, option};
use crate::pure::ip_config::{can_be_gateway, is_host, is_special};
use crate::pure::static_config::{MAX_NAME_SERVERS, NameServers};

/// A lease whose time is not said lasts this long.
const DEFAULT_TIME: Duration = Duration::from_secs(3600);
/// A lease that is shorter is taken for one of this length: it would be over before it could be
/// renewed.
const SHORTEST_TIME: Duration = Duration::from_secs(2);
/// The time of a lease without an end.
const INFINITE: u32 = u32::MAX;

/// An address and what belongs to it, for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The address.
    pub(crate) address: Ipv4Addr,
    /// The length of the network's prefix in bits.
    pub(crate) prefix: u8,
    /// The way to other networks. It may be outside of the prefix.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// The name servers.
    pub(crate) dns: NameServers<Ipv4Addr>,
    /// Who renews it.
    pub(crate) server: Ipv4Addr,
    /// When it is to be renewed (T1), by any server (T2), and when it ends, from its start on.
    pub(crate) times: Option<[Duration; 3]>,
}

/// Why an offer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No host can have the address.
    #[error("{0} is no address for a host")]
    Address(Ipv4Addr),
    /// The server has taken back what it offered.
    #[error("the offer was withdrawn (NAK)")]
    Withdrawn,
    /// The server says nothing more.
    #[error("the offer was not confirmed")]
    Silence,
}

/// What of a lease is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    /// The mask is none.
    #[error("the mask {0} is ignored")]
    Mask(Ipv4Addr),
    /// A router cannot be one.
    #[error("the router {0} is ignored")]
    Router(Ipv4Addr),
    /// A name server cannot be one.
    #[error("the name server {0} is ignored")]
    Dns(Ipv4Addr),
    /// Routes are not well-formed.
    #[error("malformed routes are ignored")]
    Routes,
}

impl Lease {
    /// Reads an offer or a confirmation that came from `sender`. What a confirmation leaves out is
    /// as `before`.
    pub(super) fn read(
        reply: &Reply<'_>,
        sender: Ipv4Addr,
        before: Option<&Self>,
    ) -> Result<(Self, Option<Flaw>), Refusal> {
        let leased = reply.address();
        let before = before.filter(|before| before.address == leased);
        let mut flaw = None;
        if !is_host(leased) {
            return Err(Refusal::Address(leased));
        }
        let prefix = prefix(reply, &mut flaw);
        let prefix = prefix.or_else(|| before.map(|before| before.prefix));
        let prefix = prefix.unwrap_or_else(|| class_prefix(leased));
        if is_special(leased, prefix) {
            return Err(Refusal::Address(leased));
        }
        let gateway = gateway(reply, leased, prefix, &mut flaw);
        let gateway = gateway.unwrap_or_else(|| before.and_then(|before| before.gateway));
        let dns = dns(reply, &mut flaw);
        let dns = dns.or_else(|| before.map(|before| before.dns.clone()));
        let server = reply.address_option(option::SERVER);
        let server = server.filter(|server| is_host(*server)).unwrap_or(sender);
        let lease = Self {
            address: leased,
            prefix,
            gateway,
            dns: dns.unwrap_or_default(),
            server,
            times: times(reply),
        };
        Ok((lease, flaw))
    }

    /// Whether a stack is configured the same way by both.
    pub(super) fn configures_like(&self, other: &Self) -> bool {
        self.address == other.address
            && self.prefix == other.prefix
            && self.gateway == other.gateway
            && self.dns == other.dns
    }
}

fn prefix(reply: &Reply<'_>, flaw: &mut Option<Flaw>) -> Option<u8> {
    let mask = reply.address_option(option::MASK)?;
    let bits = mask.to_bits();
    if bits == 0 || bits.count_ones() != bits.leading_ones() {
        flaw.get_or_insert(Flaw::Mask(mask));
        return None;
    }
    u8::try_from(bits.leading_ones()).ok()
}

/// The prefix of a network that has no mask (RFC 950).
fn class_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

/// The default route: that of the routes, if there are some, else the first usable router (RFC
/// 3442). Nothing at all if the server says nothing of either.
fn gateway(
    reply: &Reply<'_>,
    own: Ipv4Addr,
    prefix: u8,
    flaw: &mut Option<Flaw>,
) -> Option<Option<Ipv4Addr>> {
    let routes = reply.option(option::ROUTES).unwrap_or_default();
    let default = default_route(&routes).map_err(|flawed| flaw.get_or_insert(flawed));
    let default = default.ok().filter(|_| !routes.is_empty());
    let usable = |router: &Ipv4Addr| {
        let usable = can_be_gateway(*router, own, prefix);
        if !usable {
            flaw.get_or_insert(Flaw::Router(*router));
        }
        usable
    };
    if let Some(router) = default {
        return Some(router.filter(usable));
    }
    let routers = reply.option(option::ROUTERS)?;
    let mut routers = routers.chunks_exact(4).map(address);
    Some(routers.find(usable))
}

/// The router of the route to everywhere, if there is one. Each route is the length of a prefix, as
/// many bytes of the prefix as that takes, and a router.
fn default_route(mut routes: &[u8]) -> Result<Option<Ipv4Addr>, Flaw> {
    let mut found = None;
    while let [length, rest @ ..] = routes {
        let prefix_bytes = usize::from(length.div_ceil(8));
        if *length > 32 || rest.len() < prefix_bytes + 4 {
            return Err(Flaw::Routes);
        }
        let (router, rest) = rest[prefix_bytes..].split_at(4);
        if *length == 0 && found.is_none() {
            found = Some(address(router));
        }
        routes = rest;
    }
    Ok(found)
}

fn dns(reply: &Reply<'_>, flaw: &mut Option<Flaw>) -> Option<NameServers<Ipv4Addr>> {
    let value: Vec<u8> = reply.option(option::DNS)?;
    let servers = value.chunks_exact(4).map(address);
    let usable = servers.filter(|server| {
        let usable = is_host(*server);
        if !usable {
            flaw.get_or_insert(Flaw::Dns(*server));
        }
        usable
    });
    Some(usable.take(MAX_NAME_SERVERS).collect())
}

fn times(reply: &Reply<'_>) -> Option<[Duration; 3]> {
    let seconds = |code| {
        reply
            .seconds_option(code)
            .map(u64::from)
            .map(Duration::from_secs)
    };
    let end = match reply.seconds_option(option::LEASE_TIME) {
        Some(INFINITE) => return None,
        Some(time) => Duration::from_secs(time.into()).max(SHORTEST_TIME),
        None => DEFAULT_TIME,
    };
    let given = seconds(option::RENEWAL).zip(seconds(option::REBINDING));
    // RFC 2131, 4.4.5. Times that do not follow each other are not those of a lease.
    let (renewal, rebinding) = given
        .filter(|(renewal, rebinding)| {
            !renewal.is_zero() && renewal < rebinding && *rebinding < end
        })
        .unwrap_or((end / 2, end / 8 * 7));
    Some([renewal, rebinding, end])
}
