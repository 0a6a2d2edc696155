//! The key `ip` of the command line: by DHCP, or an address with what belongs to it.

use core::net::Ipv4Addr;
use core::str::FromStr;

use heapless::Vec;

/// The most name servers that can be given.
const MAX_NAME_SERVERS: usize = 3;

/// How the IP stack gets its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IpConfig {
    /// From a server.
    Dhcp,
    /// It is given.
    Static {
        /// The address.
        address: Ipv4Addr,
        /// The length of the network's prefix in bits.
        prefix: u8,
        /// The way to other networks.
        gateway: Option<Ipv4Addr>,
        /// The name servers.
        dns: Vec<Ipv4Addr, MAX_NAME_SERVERS>,
    },
}

/// What is wrong with the key `ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIpConfig {
    /// It is neither `dhcp` nor begins with an address.
    #[error("neither dhcp nor ADDRESS/LENGTH")]
    Address,
    /// The length of the prefix is missing or above 32.
    #[error("the prefix length is not a number from 0 to 32")]
    Prefix,
    /// What follows the address is not an option with an address.
    #[error("an option is not gw=ADDRESS or dns=ADDRESS")]
    Option,
    /// There are too many name servers.
    #[error("more than three name servers")]
    TooManyNameServers,
}

impl FromStr for IpConfig {
    type Err = BadIpConfig;

    fn from_str(text: &str) -> Result<Self, BadIpConfig> {
        const LONGEST_PREFIX: u8 = 32;
        if text == "dhcp" {
            return Ok(Self::Dhcp);
        }
        let mut parts = text.split(',');
        let (address, prefix) = parts
            .next()
            .and_then(|first| first.split_once('/'))
            .ok_or(BadIpConfig::Address)?;
        let address = address.parse().map_err(|_| BadIpConfig::Address)?;
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| *prefix <= LONGEST_PREFIX);
        let prefix = prefix.ok_or(BadIpConfig::Prefix)?;
        let mut gateway = None;
        let mut dns = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=').ok_or(BadIpConfig::Option)?;
            let value = value.parse().map_err(|_| BadIpConfig::Option)?;
            match name {
                "gw" => gateway = Some(value),
                "dns" => dns
                    .push(value)
                    .map_err(|_| BadIpConfig::TooManyNameServers)?,
                _ => return Err(BadIpConfig::Option),
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

    #[test]
    fn addresses_and_options_are_understood() {
        assert_eq!("dhcp".parse(), Ok(IpConfig::Dhcp));
        let parsed: IpConfig = "10.0.2.15/24,gw=10.0.2.2,dns=10.0.2.3,dns=1.1.1.1"
            .parse()
            .unwrap();
        let expected = IpConfig::Static {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            dns: [Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(1, 1, 1, 1)]
                .into_iter()
                .collect(),
        };
        assert_eq!(parsed, expected);
    }

    #[test]
    fn mistakes_are_named() {
        let mistakes = [
            ("", BadIpConfig::Address),
            ("10.0.2.15", BadIpConfig::Address),
            ("10.0.2/24", BadIpConfig::Address),
            ("10.0.2.15/33", BadIpConfig::Prefix),
            ("10.0.2.15/", BadIpConfig::Prefix),
            ("10.0.2.15/24,gw", BadIpConfig::Option),
            ("10.0.2.15/24,gw=10", BadIpConfig::Option),
            ("10.0.2.15/24,mtu=1.2.3.4", BadIpConfig::Option),
            (
                "1.1.1.1/8,dns=1.1.1.1,dns=1.1.1.2,dns=1.1.1.3,dns=1.1.1.4",
                BadIpConfig::TooManyNameServers,
            ),
        ];
        for (text, error) in mistakes {
            assert_eq!(text.parse::<IpConfig>(), Err(error), "{text:?}");
        }
    }
}
