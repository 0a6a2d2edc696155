//! What routers have advertised, for as long as it holds.

use core::net::Ipv6Addr;
use core::time::Duration;

use super::INTERFACE_ID_BITS;
use crate::pure::ip6_config::is_host;
use crate::pure::ndp::message::{PrefixInformation, RouterAdvertisement, RouterOption};
use crate::pure::static_config::MAX_NAME_SERVERS;

/// How many routers and how many prefixes are remembered. A link with more has a strange host on
/// it.
pub(super) const ROUTERS_MAX: usize = 4;
pub(super) const PREFIXES_MAX: usize = 4;
/// A shorter lifetime than this is not believed of an address that is to live longer (RFC 4862,
/// 5.5.3).
const SHORT_LIFETIME: Duration = Duration::from_secs(2 * 3600);

/// What one host remembers of it.
#[derive(Debug, Default)]
pub(super) struct Advertised {
    /// In the order of their preference.
    pub(super) routers: heapless::Vec<Router, ROUTERS_MAX>,
    pub(super) prefixes: heapless::Vec<Prefix, PREFIXES_MAX>,
    pub(super) dns: heapless::Vec<NameServer, MAX_NAME_SERVERS>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Router {
    pub(super) address: Ipv6Addr,
    pub(super) preference: i8,
    pub(super) until: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    pub(super) address: Ipv6Addr,
    pub(super) on_link: bool,
    pub(super) valid_until: Duration,
    pub(super) preferred_until: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct NameServer {
    pub(super) address: Ipv6Addr,
    pub(super) until: Duration,
}

impl Advertised {
    /// A router advertises itself, prefixes and name servers.
    pub(super) fn hear(&mut self, now: Duration, advertisement: &RouterAdvertisement<'_>) {
        let RouterAdvertisement {
            router: address,
            lifetime,
            preference,
            ..
        } = *advertisement;
        // In the order of their preference.
        self.routers.retain(|router| router.address != address);
        if lifetime > 0 {
            let place = self
                .routers
                .iter()
                .position(|router| router.preference < preference);
            let until = now + Duration::from_secs(lifetime.into());
            let router = Router {
                address,
                preference,
                until,
            };
            // One too many is not remembered.
            let _ = self
                .routers
                .insert(place.unwrap_or(self.routers.len()), router);
        }
        for option in advertisement.options() {
            match option {
                RouterOption::Prefix(information) => self.hear_prefix(now, &information),
                RouterOption::NameServers { lifetime, servers } => {
                    for server in servers {
                        self.hear_name_server(now, lifetime, (*server).into());
                    }
                }
            }
        }
    }

    /// RFC 4862, 5.5.3.
    fn hear_prefix(&mut self, now: Duration, information: &PrefixInformation) {
        let PrefixInformation {
            prefix,
            length,
            on_link,
            autonomous,
            valid,
            preferred,
        } = *information;
        if !autonomous
            || length != INTERFACE_ID_BITS
            || preferred > valid
            || prefix.is_unicast_link_local()
            || !is_host(prefix)
        {
            return;
        }
        let address = (prefix.to_bits() & !u128::from(u64::MAX)).into();
        let valid_until = now + Duration::from_secs(valid.into());
        let preferred_until = now + Duration::from_secs(preferred.into());
        let known = self.prefixes.iter_mut();
        if let Some(known) = known.into_iter().find(|known| known.address == address) {
            known.on_link = on_link;
            known.preferred_until = preferred_until;
            if valid_until >= known.valid_until || valid_until > now + SHORT_LIFETIME {
                known.valid_until = valid_until;
            } else {
                known.valid_until = known.valid_until.min(now + SHORT_LIFETIME);
            }
        } else if valid > 0 {
            // One too many is not remembered.
            let _ = self.prefixes.push(Prefix {
                address,
                on_link,
                valid_until,
                preferred_until,
            });
        }
    }

    fn hear_name_server(&mut self, now: Duration, lifetime: u32, address: Ipv6Addr) {
        let until = now + Duration::from_secs(lifetime.into());
        if let Some(known) = self.dns.iter_mut().find(|known| known.address == address) {
            known.until = until;
        } else if lifetime > 0 && is_host(address) {
            // Three are enough.
            let _ = self.dns.push(NameServer { address, until });
        }
    }

    /// Forgets what has been said long ago.
    pub(super) fn expire(&mut self, now: Duration) {
        self.routers.retain(|router| router.until > now);
        self.prefixes.retain(|prefix| prefix.valid_until > now);
        self.dns.retain(|server| server.until > now);
    }

    /// When something of it changes.
    pub(super) fn times(&self, now: Duration) -> impl Iterator<Item = Duration> {
        let routers = self.routers.iter().map(|router| router.until);
        let prefixes = self.prefixes.iter().flat_map(move |prefix| {
            let preferred = Some(prefix.preferred_until).filter(|until| *until > now);
            [Some(prefix.valid_until), preferred].into_iter().flatten()
        });
        let servers = self.dns.iter().map(|server| server.until);
        routers.chain(prefixes).chain(servers)
    }
}
