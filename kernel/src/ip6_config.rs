//! The key `ip6` of the command line: automatic, off, or an address with what belongs to it; and
//! which addresses make sense.

use core::net::Ipv6Addr;
use core::str::FromStr;

use heapless::Vec;

use crate::ip_config::MAX_NAME_SERVERS;

/// The name servers.
pub(crate) type DnsServers6 = Vec<Ipv6Addr, MAX_NAME_SERVERS>;

/// How the IP stack gets its IPv6 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ip6Config {
    /// From what routers advertise.
    Auto,
    /// There is no IPv6.
    Off,
    /// It is given.
    Static {
        /// The address.
        address: Ipv6Addr,
        /// The length of the network's prefix in bits.
        prefix: u8,
        /// The way to other networks. It may be outside of the prefix.
        gateway: Option<Ipv6Addr>,
        /// The name servers.
        dns: DnsServers6,
    },
}

/// What is wrong with the key `ip6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIp6Config {
    /// It is neither `auto` nor `off`, nor begins with an address.
    #[error("neither auto, off nor ADDRESS/LENGTH")]
    Address,
    /// The length of the prefix is missing, 0, or above 128.
    #[error("the prefix length is not a number from 1 to 128")]
    Prefix,
    /// No host can have the address, or every host has one like it.
    #[error("{0} is no address for a host")]
    NoHost(Ipv6Addr),
    /// What follows the address is not an option with an address.
    #[error("an option is not gw=ADDRESS or dns=ADDRESS")]
    Option,
    /// The gateway is the host itself, or no host.
    #[error("{0} cannot be the gateway")]
    Gateway(Ipv6Addr),
    /// There are two gateways.
    #[error("more than one gateway")]
    TwoGateways,
    /// There are too many name servers.
    #[error("more than three name servers")]
    TooManyNameServers,
}

/// The longest prefix.
const ADDRESS_BITS: u8 = 128;

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
    prefix < ADDRESS_BITS - 1 && address.to_bits() & host == 0
}

impl FromStr for Ip6Config {
    type Err = BadIp6Config;

    fn from_str(text: &str) -> Result<Self, BadIp6Config> {
        match text {
            "auto" => return Ok(Self::Auto),
            "off" => return Ok(Self::Off),
            _ => {}
        }
        let mut parts = text.split(',');
        let (address, prefix) = parts
            .next()
            .and_then(|first| first.split_once('/'))
            .ok_or(BadIp6Config::Address)?;
        let address: Ipv6Addr = address.parse().map_err(|_| BadIp6Config::Address)?;
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| (1..=ADDRESS_BITS).contains(prefix));
        let prefix = prefix.ok_or(BadIp6Config::Prefix)?;
        // The link-local address is there in any case.
        if !is_host(address) || address.is_unicast_link_local() || is_anycast(address, prefix) {
            return Err(BadIp6Config::NoHost(address));
        }
        let mut gateway = None;
        let mut dns = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=').ok_or(BadIp6Config::Option)?;
            let value = value.parse().map_err(|_| BadIp6Config::Option)?;
            match name {
                "gw" if value == address || !is_host(value) => {
                    return Err(BadIp6Config::Gateway(value));
                }
                "gw" if gateway.is_some() => return Err(BadIp6Config::TwoGateways),
                "gw" => gateway = Some(value),
                "dns" if !is_host(value) => return Err(BadIp6Config::NoHost(value)),
                "dns" => dns
                    .push(value)
                    .map_err(|_| BadIp6Config::TooManyNameServers)?,
                _ => return Err(BadIp6Config::Option),
            }
        }
        Ok(Self::Static {
            address,
            prefix,
            gateway,
            dns,
        })
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
        let expected = Ip6Config::Static {
            address: ip("2001:db8::2"),
            prefix: 64,
            gateway: Some(ip("fe80::1")),
            dns: [ip("2001:db8::53"), ip("fd00::53")].into_iter().collect(),
        };
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
        let gateway = |text: &str| BadIp6Config::Gateway(ip(text));
        let no_host = |text: &str| BadIp6Config::NoHost(ip(text));
        let mistakes = [
            ("", BadIp6Config::Address),
            ("AUTO", BadIp6Config::Address),
            ("auto,dns=fd00::1", BadIp6Config::Address),
            ("off/64", BadIp6Config::Address),
            ("2001:db8::2", BadIp6Config::Address),
            ("10.0.2.15/24", BadIp6Config::Address),
            ("2001:db8:::2/64", BadIp6Config::Address),
            ("[2001:db8::2]/64", BadIp6Config::Address),
            ("fe80::1%net0/64", BadIp6Config::Address),
            ("2001:db8::2/", BadIp6Config::Prefix),
            ("2001:db8::2/0", BadIp6Config::Prefix),
            ("2001:db8::2/129", BadIp6Config::Prefix),
            ("2001:db8::2/-1", BadIp6Config::Prefix),
            ("2001:db8::2/64/64", BadIp6Config::Prefix),
            ("::/64", no_host("::")),
            ("::1/128", no_host("::1")),
            ("ff02::1/64", no_host("ff02::1")),
            ("::ffff:10.0.2.15/96", no_host("::ffff:10.0.2.15")),
            ("fe80::1/64", no_host("fe80::1")),
            ("2001:db8::/64", no_host("2001:db8::")),
            ("2001:db8::2/64,", BadIp6Config::Option),
            ("2001:db8::2/64,gw", BadIp6Config::Option),
            ("2001:db8::2/64,gw=10.0.2.2", BadIp6Config::Option),
            ("2001:db8::2/64,mtu=1280", BadIp6Config::Option),
            ("2001:db8::2/64,gw=2001:db8::2", gateway("2001:db8::2")),
            ("2001:db8::2/64,gw=ff02::2", gateway("ff02::2")),
            ("2001:db8::2/64,gw=::", gateway("::")),
            (
                "2001:db8::2/64,gw=fe80::1,gw=fe80::2",
                BadIp6Config::TwoGateways,
            ),
            ("2001:db8::2/64,dns=ff02::fb", no_host("ff02::fb")),
            (
                "2001:db8::2/64,dns=fd00::1,dns=fd00::2,dns=fd00::3,dns=fd00::4",
                BadIp6Config::TooManyNameServers,
            ),
        ];
        for (text, error) in mistakes {
            assert_eq!(text.parse::<Ip6Config>(), Err(error), "{text:?}");
        }
    }
}
