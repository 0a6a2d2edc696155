//! The key `ip6` of the command line: automatic, off, or an address with what belongs to it; and
//! which addresses make sense.

use core::net::Ipv6Addr;
use core::str::FromStr;

use crate::pure::static_config::{BadIpConfig, IpAddress, StaticConfig};

/// How the IP stack gets its IPv6 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ip6Config {
    /// From what routers advertise.
    Auto,
    /// There is no IPv6.
    Off,
    /// It is given.
    Static(StaticConfig<Ipv6Addr>),
}

/// Whether a host on a network can have the address (RFC 4291, 2.4 and 2.5).
pub(crate) fn is_host(address: Ipv6Addr) -> bool {
    !address.is_multicast()
        && !address.is_unspecified()
        && !address.is_loopback()
        && address.to_ipv4_mapped().is_none()
}

/// Whether the address stands for the routers of its network (RFC 4291, 2.6.1). A link of two has
/// no such address (RFC 6164).
fn is_anycast(address: Ipv6Addr, prefix: u8) -> bool {
    let host = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
    prefix < Ipv6Addr::BITS as u8 - 1 && address.to_bits() & host == 0
}

impl IpAddress for Ipv6Addr {
    const BITS: u8 = 128;
    const KEYWORDS: &str = "auto, off";

    fn is_host(self) -> bool {
        is_host(self)
    }

    fn can_be_given(self, prefix: u8) -> bool {
        // The link-local address is there in any case.
        is_host(self) && !self.is_unicast_link_local() && !is_anycast(self, prefix)
    }

    fn can_be_gateway(self, own: Self, _prefix: u8) -> bool {
        self != own && is_host(self)
    }
}

impl FromStr for Ip6Config {
    type Err = BadIpConfig<Ipv6Addr>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::Static),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_and_options_are_understood() {
        assert_eq!("auto".parse(), Ok(Ip6Config::Auto));
        assert_eq!("off".parse(), Ok(Ip6Config::Off));
        let parsed: Ip6Config = "2001:db8::2/64,gw=fe80::1,dns=2001:db8::53,dns=fd00::53"
            .parse()
            .unwrap();
        let expected = Ip6Config::Static(StaticConfig {
            address: ip("2001:db8::2"),
            prefix: 64,
            gateway: Some(ip("fe80::1")),
            dns: [ip("2001:db8::53"), ip("fd00::53")].into_iter().collect(),
        });
        assert_eq!(parsed, expected);
        for text in [
            "2001:db8::/127",
            "2001:db8::/128",
            "fd00::1/1,gw=2001:db8::1",
        ] {
            assert!(text.parse::<Ip6Config>().is_ok(), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let gateway = |text: &str| BadIpConfig::Gateway(ip(text));
        let no_host = |text: &str| BadIpConfig::NoHost(ip(text));
        let mistakes = [
            ("", BadIpConfig::Address),
            ("AUTO", BadIpConfig::Address),
            ("auto,dns=fd00::1", BadIpConfig::Address),
            ("off/64", BadIpConfig::Address),
            ("2001:db8::2", BadIpConfig::Address),
            ("10.0.2.15/24", BadIpConfig::Address),
            ("2001:db8:::2/64", BadIpConfig::Address),
            ("[2001:db8::2]/64", BadIpConfig::Address),
            ("fe80::1%net0/64", BadIpConfig::Address),
            ("2001:db8::2/", BadIpConfig::Prefix),
            ("2001:db8::2/0", BadIpConfig::Prefix),
            ("2001:db8::2/129", BadIpConfig::Prefix),
            ("2001:db8::2/-1", BadIpConfig::Prefix),
            ("2001:db8::2/64/64", BadIpConfig::Prefix),
            ("::/64", no_host("::")),
            ("::1/128", no_host("::1")),
            ("ff02::1/64", no_host("ff02::1")),
            ("::ffff:10.0.2.15/96", no_host("::ffff:10.0.2.15")),
            ("fe80::1/64", no_host("fe80::1")),
            ("2001:db8::/64", no_host("2001:db8::")),
            ("2001:db8::2/64,", BadIpConfig::Option),
            ("2001:db8::2/64,gw", BadIpConfig::Option),
            ("2001:db8::2/64,gw=10.0.2.2", BadIpConfig::Option),
            ("2001:db8::2/64,mtu=1280", BadIpConfig::Option),
            ("2001:db8::2/64,gw=2001:db8::2", gateway("2001:db8::2")),
            ("2001:db8::2/64,gw=ff02::2", gateway("ff02::2")),
            ("2001:db8::2/64,gw=::", gateway("::")),
            (
                "2001:db8::2/64,gw=fe80::1,gw=fe80::2",
                BadIpConfig::TwoGateways,
            ),
            ("2001:db8::2/64,dns=ff02::fb", no_host("ff02::fb")),
            (
                "2001:db8::2/64,dns=fd00::1,dns=fd00::2,dns=fd00::3,dns=fd00::4",
                BadIpConfig::TooManyNameServers,
            ),
        ];
        for (text, error) in mistakes {
            assert_eq!(text.parse::<Ip6Config>(), Err(error), "{text:?}");
        }
    }
}
