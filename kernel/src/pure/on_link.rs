//! A gateway that is outside of the own prefix, as clouds give one with an address of 32 bits of
//! prefix.
//!
//! `smoltcp` 0.13 takes no ARP answer from outside of its prefixes, and `embassy-net` gives it one
//! prefix only. So the stack gets a stand-in inside for its gateway, and in ARP frames, the only
//! place where its address is ever on the wire, the stand-in is exchanged for the gateway on the
//! way out, and the other way round.

use core::net::Ipv4Addr;

use crate::pure::ip_config::in_network;

/// A gateway and who stands in for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StandIn {
    /// The address that the stack knows.
    pub(crate) inside: Ipv4Addr,
    /// The address that the gateway has.
    pub(crate) outside: Ipv4Addr,
}

/// The prefix and the gateway for the stack, and what stands in for the gateway if it has to.
pub(crate) fn reach(
    own: Ipv4Addr,
    prefix: u8,
    gateway: Option<Ipv4Addr>,
) -> (u8, Option<Ipv4Addr>, Option<StandIn>) {
    const TWO_HOSTS: u8 = 31;
    let Some(outside) = gateway.filter(|gateway| !in_network(*gateway, own, prefix)) else {
        return (prefix, gateway, None);
    };
    let (prefix, inside) = if prefix < TWO_HOSTS {
        // The network's own address, which no host has. No address at all would not do.
        let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        (prefix, (own.to_bits() & !host).max(1))
    } else {
        // The only neighbour of a network of two. What is sent to it goes to the gateway, like
        // everything else.
        (TWO_HOSTS, own.to_bits() ^ 1)
    };
    let inside = Ipv4Addr::from_bits(inside);
    (prefix, Some(inside), Some(StandIn { inside, outside }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn a_gateway_inside_needs_nobody() {
        let gateway = Some(ip("10.0.2.2"));
        assert_eq!(reach(ip("10.0.2.15"), 24, gateway), (24, gateway, None));
        assert_eq!(reach(ip("10.0.2.15"), 32, None), (32, None, None));
    }

    #[test]
    fn whoever_stands_in_is_inside_and_no_host() {
        for (own, prefix, gateway, stack_prefix, inside) in [
            ("192.168.77.50", 32, "192.168.77.1", 31, "192.168.77.51"),
            ("192.168.77.51", 32, "192.168.77.50", 31, "192.168.77.50"),
            ("10.0.0.4", 31, "10.0.0.9", 31, "10.0.0.5"),
            ("10.0.0.5", 24, "10.1.0.1", 24, "10.0.0.0"),
            ("10.0.0.5", 1, "192.0.2.1", 1, "0.0.0.1"),
        ] {
            let (inside, outside) = (ip(inside), ip(gateway));
            let expected = (
                stack_prefix,
                Some(inside),
                Some(StandIn { inside, outside }),
            );
            assert_eq!(reach(ip(own), prefix, Some(outside)), expected, "{own}");
        }
    }
}
