//! An address that the command line gives, with what belongs to it:
//! `ADDRESS/LENGTH[,gw=ADDRESS][,dns=ADDRESS]`. The keys `ip` and `ip6` share it.

use core::fmt;
use core::str::FromStr;

use heapless::Vec;

/// The most name servers that there can be.
pub(crate) const MAX_NAME_SERVERS: usize = 3;

/// The name servers.
pub(crate) type NameServers<A> = Vec<A, MAX_NAME_SERVERS>;

/// The addresses of one version of the internet protocol.
pub trait IpAddress: Copy + fmt::Debug + fmt::Display + Eq + FromStr {
    /// How long an address is, in bits.
    const BITS: u8;
    /// What the key may say instead of an address.
    const KEYWORDS: &str;

    /// Whether a host on a network can have the address.
    fn is_host(self) -> bool;

    /// Whether it can be given to this host, in a network with such a prefix.
    fn can_be_given(self, prefix: u8) -> bool;

    /// Whether the host `own` can send to other networks by way of it.
    fn can_be_gateway(self, own: Self, prefix: u8) -> bool;
}

/// An address that is given, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StaticConfig<A> {
    /// The address.
    pub(crate) address: A,
    /// The length of the network's prefix in bits.
    pub(crate) prefix: u8,
    /// The way to other networks. It may be outside of the prefix.
    pub(crate) gateway: Option<A>,
    /// The name servers.
    pub(crate) dns: NameServers<A>,
}

/// What is wrong with the key `ip` or `ip6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIpConfig<A: IpAddress> {
    /// It is no keyword, and does not begin with an address.
    #[error("neither {} nor ADDRESS/LENGTH", A::KEYWORDS)]
    Address,
    /// The length of the prefix is missing, 0, or above that of an address.
    #[error("the prefix length is not a number from 1 to {}", A::BITS)]
    Prefix,
    /// No host can have the address, or every host has one like it.
    #[error("{0} is no address for a host")]
    NoHost(A),
    /// What follows the address is not an option with an address.
    #[error("an option is not gw=ADDRESS or dns=ADDRESS")]
    Option,
    /// The gateway is the host itself, or no host.
    #[error("{0} cannot be the gateway")]
    Gateway(A),
    /// There are two gateways.
    #[error("more than one gateway")]
    TwoGateways,
    /// There are too many name servers.
    #[error("more than three name servers")]
    TooManyNameServers,
}

impl<A: IpAddress> FromStr for StaticConfig<A> {
    type Err = BadIpConfig<A>;

    fn from_str(text: &str) -> Result<Self, BadIpConfig<A>> {
        let mut parts = text.split(',');
        let (address, prefix) = parts
            .next()
            .and_then(|first| first.split_once('/'))
            .ok_or(BadIpConfig::Address)?;
        let address: A = address.parse().map_err(|_| BadIpConfig::Address)?;
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| (1..=A::BITS).contains(prefix));
        let prefix = prefix.ok_or(BadIpConfig::Prefix)?;
        if !address.can_be_given(prefix) {
            return Err(BadIpConfig::NoHost(address));
        }
        let mut gateway = None;
        let mut dns = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=').ok_or(BadIpConfig::Option)?;
            let value: A = value.parse().map_err(|_| BadIpConfig::Option)?;
            match name {
                "gw" if !value.can_be_gateway(address, prefix) => {
                    return Err(BadIpConfig::Gateway(value));
                }
                "gw" if gateway.is_some() => return Err(BadIpConfig::TwoGateways),
                "gw" => gateway = Some(value),
                "dns" if !value.is_host() => return Err(BadIpConfig::NoHost(value)),
                "dns" => dns
                    .push(value)
                    .map_err(|_| BadIpConfig::TooManyNameServers)?,
                _ => return Err(BadIpConfig::Option),
            }
        }
        Ok(Self {
            address,
            prefix,
            gateway,
            dns,
        })
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::string::ToString;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_for_the_family() {
        let four = [BadIpConfig::<Ipv4Addr>::Address, BadIpConfig::Prefix];
        assert_eq!(
            four.map(|error| error.to_string()),
            [
                "neither dhcp nor ADDRESS/LENGTH",
                "the prefix length is not a number from 1 to 32"
            ]
        );
        let six = [BadIpConfig::<Ipv6Addr>::Address, BadIpConfig::Prefix];
        assert_eq!(
            six.map(|error| error.to_string()),
            [
                "neither auto, off nor ADDRESS/LENGTH",
                "the prefix length is not a number from 1 to 128"
            ]
        );
    }
}
