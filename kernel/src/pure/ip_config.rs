//! The key `ip` of the command line: by DHCP, or an address with what belongs to it; and which
//! addresses make sense.

use core::net::Ipv4Addr;
use core::str::FromStr;

use crate::pure::static_config::{BadIpConfig, IpAddress, StaticConfig};

/// How the IP stack gets its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IpConfig {
    /// From a server.
    Dhcp,
    /// It is given.
    Static(StaticConfig<Ipv4Addr>),
}

/// Whether a host on a network can have the address (RFC 1122, 3.2.1.3; RFC 1112; RFC 6890).
pub(crate) fn is_host(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

/// Whether the address stands for its network, or for everybody there.
pub(crate) fn is_special(address: Ipv4Addr, prefix: u8) -> bool {
    // A link of two hosts has neither (RFC 3021).
    const TWO_HOSTS: u8 = 31;
    let host = host_bits(prefix);
    let bits = address.to_bits() & host;
    prefix < TWO_HOSTS && (bits == 0 || bits == host)
}

/// Whether the host `own` can send to other networks by way of `gateway`.
pub(crate) fn can_be_gateway(gateway: Ipv4Addr, own: Ipv4Addr, prefix: u8) -> bool {
    gateway != own
        && is_host(gateway)
        && !(in_network(gateway, own, prefix) && is_special(gateway, prefix))
}

/// Whether two addresses are in one network.
pub(crate) fn in_network(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    (one.to_bits() ^ other.to_bits()) & !host_bits(prefix) == 0
}

fn host_bits(prefix: u8) -> u32 {
    u32::MAX.checked_shr(prefix.into()).unwrap_or(0)
}

impl IpAddress for Ipv4Addr {
    const BITS: u8 = 32;
    const KEYWORDS: &str = "dhcp";

    fn is_host(self) -> bool {
        is_host(self)
    }

    fn can_be_given(self, prefix: u8) -> bool {
        is_host(self) && !is_special(self, prefix)
    }

    fn can_be_gateway(self, own: Self, prefix: u8) -> bool {
        can_be_gateway(self, own, prefix)
    }
}

impl FromStr for IpConfig {
    type Err = BadIpConfig<Ipv4Addr>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "dhcp" => Ok(Self::Dhcp),
            _ => text.parse().map(Self::Static),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_options_are_understood() {
        assert_eq!("dhcp".parse(), Ok(IpConfig::Dhcp));
        let parsed: IpConfig = "10.0.2.15/24,gw=10.0.2.2,dns=10.0.2.3,dns=1.1.1.1"
            .parse()
            .unwrap();
        let expected = IpConfig::Static(StaticConfig {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            dns: [Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(1, 1, 1, 1)]
                .into_iter()
                .collect(),
        });
        assert_eq!(parsed, expected);
    }

    #[test]
    fn mistakes_are_named() {
        let gateway = |text: &str| BadIpConfig::Gateway(text.parse().unwrap());
        let no_host = |text: &str| BadIpConfig::NoHost(text.parse().unwrap());
        let mistakes = [
            ("", BadIpConfig::Address),
            (",", BadIpConfig::Address),
            ("/", BadIpConfig::Address),
            ("DHCP", BadIpConfig::Address),
            ("dhcp,gw=10.0.2.2", BadIpConfig::Address),
            ("10.0.2.15", BadIpConfig::Address),
            ("10.0.2/24", BadIpConfig::Address),
            ("10.0.2.256/24", BadIpConfig::Address),
            ("010.0.2.15/24", BadIpConfig::Address),
            ("fec0::1/64", BadIpConfig::Address),
            ("10.0.2.15/33", BadIpConfig::Prefix),
            ("10.0.2.15/0", BadIpConfig::Prefix),
            ("0.0.0.0/0", BadIpConfig::Prefix),
            ("10.0.2.15/", BadIpConfig::Prefix),
            ("10.0.2.15/-1", BadIpConfig::Prefix),
            ("10.0.2.15/24/24", BadIpConfig::Prefix),
            ("10.0.2.15/99999999999999999999", BadIpConfig::Prefix),
            ("0.0.0.0/8", no_host("0.0.0.0")),
            ("0.1.2.3/24", no_host("0.1.2.3")),
            ("127.0.0.1/8", no_host("127.0.0.1")),
            ("224.0.0.1/4", no_host("224.0.0.1")),
            ("240.0.0.1/24", no_host("240.0.0.1")),
            ("255.255.255.255/32", no_host("255.255.255.255")),
            ("10.0.2.0/24", no_host("10.0.2.0")),
            ("10.0.2.255/24", no_host("10.0.2.255")),
            ("10.0.2.15/24,", BadIpConfig::Option),
            ("10.0.2.15/24,gw", BadIpConfig::Option),
            ("10.0.2.15/24,gw=", BadIpConfig::Option),
            ("10.0.2.15/24,gw=10", BadIpConfig::Option),
            ("10.0.2.15/24,mtu=1.2.3.4", BadIpConfig::Option),
            ("10.0.2.15/24,gw=10.0.2.15", gateway("10.0.2.15")),
            ("10.0.2.15/24,gw=10.0.2.0", gateway("10.0.2.0")),
            ("10.0.2.15/24,gw=10.0.2.255", gateway("10.0.2.255")),
            ("10.0.2.15/24,gw=0.0.0.0", gateway("0.0.0.0")),
            ("10.0.2.15/24,gw=127.0.0.1", gateway("127.0.0.1")),
            (
                "10.0.2.15/24,gw=255.255.255.255",
                gateway("255.255.255.255"),
            ),
            (
                "10.0.2.15/24,gw=10.0.2.2,gw=10.0.2.3",
                BadIpConfig::TwoGateways,
            ),
            ("10.0.2.15/24,dns=224.0.0.251", no_host("224.0.0.251")),
            (
                "1.1.1.1/8,dns=1.1.1.1,dns=1.1.1.2,dns=1.1.1.3,dns=1.1.1.4",
                BadIpConfig::TooManyNameServers,
            ),
        ];
        for (text, error) in mistakes {
            assert_eq!(text.parse::<IpConfig>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_gateway_may_be_outside_of_the_prefix_and_a_link_may_have_two_hosts() {
        for text in [
            "192.168.77.50/32,gw=192.168.77.1",
            "10.0.0.5/24,gw=10.1.0.1",
            "10.0.0.0/31,gw=10.0.0.1",
            "10.0.0.255/32",
            "10.0.0.5/1",
        ] {
            assert!(text.parse::<IpConfig>().is_ok(), "{text}");
        }
    }
}
