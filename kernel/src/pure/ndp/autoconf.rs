//! A host that configures itself: the link-local address, one of the prefixes that routers
//! advertise or a given address, and the routers (RFC 4862; RFC 4861, 6.3; RFC 4191; RFC 8106).
//!
//! Of several prefixes one is used, because the stack has room for one address beside the
//! link-local one: a preferred one before a deprecated one, a global one before one of the site,
//! else the first.

mod advertised;

use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use super::message::{self, Message, advertisement, probe, router_solicitation};
use crate::pure::ip6_config::Ip6Config;
use crate::pure::static_config::{NameServers, StaticConfig};

use self::advertised::Advertised;

/// How long the owner of an address has to object to its use (RFC 4861, 10: RETRANS_TIMER).
const PROBE_TIME: Duration = Duration::from_secs(1);
/// When routers are asked again, and the most that it grows to (RFC 7559, 2.1).
const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);
const SOLICITATION_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// How many changes of the configuration follow each other at once. Further ones are made once a
/// second, whatever routers say.
const CHANGES_MAX: u64 = 8;
const INTERFACE_ID_BITS: u8 = 64;

/// What the stack is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// Whether it may use IPv6: the link-local address is nobody else's.
    pub(crate) is_open: bool,
    /// The address and the length of its prefix, which is 128 if only routers reach its neighbors.
    pub(crate) address: Option<(Ipv6Addr, u8)>,
    pub(crate) gateway: Option<Ipv6Addr>,
    pub(crate) dns: NameServers<Ipv6Addr>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send a frame.
    Send(Vec<u8>),
    /// The stack is to have this from now on.
    Configure(Configuration),
    /// Another host has the address, which is not taken.
    Duplicate(Ipv6Addr),
    /// Nothing until then, or a message.
    Wait(Option<Duration>),
}

/// The state of one interface.
#[derive(Debug)]
pub(crate) struct Autoconf {
    mac: [u8; 6],
    interface_id: u64,
    config: Ip6Config,
    link_is_up: bool,
    link_local: Own,
    own: Option<Own>,
    advertised: Advertised,
    solicit_at: Duration,
    interval: Duration,
    /// Who tries an address that is ours.
    asked: Option<Ipv6Addr>,
    last: Configuration,
    /// How many changes may be made at once, and when that was counted.
    changes: u64,
    counted_at: Duration,
}

/// An address of the interface.
#[derive(Clone, Copy, Debug)]
struct Own {
    address: Ipv6Addr,
    prefix: u8,
    state: OwnState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnState {
    /// Nobody has been asked yet.
    New,
    /// It is used if nobody objects until then.
    Tentative(Duration),
    Valid,
    /// Another host has it; it has been told or not.
    Duplicate {
        is_told: bool,
    },
}

impl Own {
    fn new(address: Ipv6Addr, prefix: u8) -> Self {
        let state = OwnState::New;
        Self {
            address,
            prefix,
            state,
        }
    }
}

impl Autoconf {
    /// An interface whose addresses are made of `identity`, a hardware address that may be another
    /// interface's.
    pub(crate) fn new(mac: [u8; 6], identity: [u8; 6], config: &Ip6Config) -> Self {
        let [a, b, c, d, e, f] = identity;
        // A modified EUI-64 (RFC 4291, appendix A).
        let interface_id = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        let own = match config {
            Ip6Config::Static(given) => Some(Own::new(given.address, given.prefix)),
            Ip6Config::Auto | Ip6Config::Off => None,
        };
        let link_local = (0xfe80 << 112 | u128::from(interface_id)).into();
        Self {
            mac,
            interface_id,
            config: config.clone(),
            link_is_up: false,
            link_local: Own::new(link_local, INTERFACE_ID_BITS),
            own,
            advertised: Advertised::default(),
            solicit_at: Duration::ZERO,
            interval: SOLICITATION_INTERVAL,
            asked: None,
            last: Configuration::default(),
            changes: CHANGES_MAX,
            counted_at: Duration::ZERO,
        }
    }

    /// The state of the link, which may be as before. Behind a link that comes back there may be
    /// other routers and hosts.
    pub(crate) fn set_link(&mut self, now: Duration, is_up: bool) {
        if is_up && !self.link_is_up {
            self.solicit_at = now;
            self.interval = SOLICITATION_INTERVAL;
            for own in self.own.iter_mut().chain([&mut self.link_local]) {
                if own.state != OwnState::Valid {
                    own.state = OwnState::New;
                }
            }
        }
        self.link_is_up = is_up;
    }

    /// A frame with a message has come.
    pub(crate) fn receive(&mut self, now: Duration, frame: &[u8]) {
        // What one sends oneself may come back.
        if frame.get(6..12) == Some(&self.mac[..]) {
            return;
        }
        match message::read(frame) {
            Some(Message::Router(advertisement)) if self.config == Ip6Config::Auto => {
                self.advertised.hear(now, &advertisement);
                if advertisement.lifetime > 0 {
                    self.interval = SOLICITATION_INTERVAL;
                }
            }
            Some(Message::Solicitation { source, target }) if source.is_unspecified() => {
                self.asked = self.object(target).then_some(target).or(self.asked);
            }
            Some(Message::Advertisement { target }) => {
                self.object(target);
            }
            _ => {}
        }
    }

    /// Another host has or tries an address: one that is not taken yet is left to it. Whether it is
    /// ours.
    fn object(&mut self, target: Ipv6Addr) -> bool {
        for own in self.own.iter_mut().chain([&mut self.link_local]) {
            if own.address != target {
                continue;
            }
            match own.state {
                OwnState::Tentative(_) => own.state = OwnState::Duplicate { is_told: false },
                OwnState::Valid => return true,
                OwnState::New | OwnState::Duplicate { .. } => {}
            }
        }
        false
    }

    /// What is to be done now.
    pub(crate) fn step(&mut self, now: Duration) -> Step {
        self.advertised.expire(now);
        self.choose(now);
        if self.link_is_up {
            if let Some(target) = self.asked.take() {
                return Step::Send(advertisement(self.mac, target));
            }
            if let Some(step) = self.take_addresses(now) {
                return step;
            }
            if self.solicits() && self.solicit_at <= now {
                self.solicit_at = now + self.interval;
                self.interval = (2 * self.interval).min(SOLICITATION_INTERVAL_MAX);
                let source = match self.link_local.state {
                    OwnState::Valid => self.link_local.address,
                    _ => Ipv6Addr::UNSPECIFIED,
                };
                return Step::Send(router_solicitation(self.mac, source));
            }
        }
        let configuration = self.configuration();
        let mut next = self.next_time(now);
        if configuration != self.last {
            let gained = now.saturating_sub(self.counted_at).as_secs();
            if gained > 0 {
                self.changes = (self.changes + gained).min(CHANGES_MAX);
                self.counted_at = now;
            }
            if let Some(left) = self.changes.checked_sub(1) {
                self.changes = left;
                self.last = configuration.clone();
                return Step::Configure(configuration);
            }
            let due = self.counted_at + Duration::from_secs(1);
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        Step::Wait(next)
    }

    /// Whether a router has to be looked for.
    fn solicits(&self) -> bool {
        self.config == Ip6Config::Auto
            && self.advertised.routers.is_empty()
            && !matches!(self.link_local.state, OwnState::Duplicate { .. })
    }

    /// Decides on the prefix of the address.
    fn choose(&mut self, now: Duration) {
        if self.config != Ip6Config::Auto {
            return;
        }
        let mut best: Option<(u8, Own)> = None;
        for prefix in &self.advertised.prefixes {
            let is_preferred = prefix.preferred_until > now;
            // Addresses of a site are unique local ones, or the old ones from before (RFC 4193; RFC
            // 3879).
            let is_local = matches!(prefix.address.segments()[0], 0xfc00..=0xfeff);
            let rank = u8::from(is_preferred) * 2 + u8::from(!is_local);
            if best.is_none_or(|(other, _)| other < rank) {
                let address = prefix.address.to_bits() | u128::from(self.interface_id);
                let length = if prefix.on_link {
                    INTERFACE_ID_BITS
                } else {
                    Ipv6Addr::BITS as u8
                };
                best = Some((rank, Own::new(address.into(), length)));
            }
        }
        let state = self.own.map(|own| (own.address, own.state));
        self.own = best.map(|(_, mut own)| {
            if let Some((address, state)) = state
                && address == own.address
            {
                own.state = state;
            }
            own
        });
    }

    /// Tries new addresses, and takes those that nobody objects to (RFC 4862, 5.4). The first probe
    /// is not delayed: the hosts of a link do not all start at once, and a boot is over by then.
    fn take_addresses(&mut self, now: Duration) -> Option<Step> {
        for own in [&mut self.link_local].into_iter().chain(&mut self.own) {
            match own.state {
                OwnState::New => {
                    own.state = OwnState::Tentative(now + PROBE_TIME);
                    return Some(Step::Send(probe(self.mac, own.address)));
                }
                OwnState::Tentative(until) if until <= now => own.state = OwnState::Valid,
                OwnState::Duplicate { is_told: false } => {
                    own.state = OwnState::Duplicate { is_told: true };
                    return Some(Step::Duplicate(own.address));
                }
                OwnState::Tentative(_) | OwnState::Valid | OwnState::Duplicate { .. } => {}
            }
        }
        None
    }

    fn configuration(&self) -> Configuration {
        // The owner of the link-local address has the others too (RFC 4862, 5.4.5).
        if self.link_local.state != OwnState::Valid {
            return Configuration::default();
        }
        let valid = self.own.filter(|own| own.state == OwnState::Valid);
        let mut configuration = Configuration {
            is_open: true,
            address: valid.map(|own| (own.address, own.prefix)),
            ..Configuration::default()
        };
        if configuration.address.is_none() {
            return configuration;
        }
        if let Ip6Config::Static(StaticConfig { gateway, dns, .. }) = &self.config {
            configuration.gateway = *gateway;
            configuration.dns = dns.clone();
        } else {
            configuration.gateway = self.advertised.routers.first().map(|router| router.address);
            configuration.dns = self
                .advertised
                .dns
                .iter()
                .map(|server| server.address)
                .collect();
        }
        configuration
    }

    /// When something is to be done next.
    fn next_time(&self, now: Duration) -> Option<Duration> {
        let tentative = [Some(self.link_local), self.own].into_iter().flatten();
        let tentative = tentative.filter_map(|own| match own.state {
            OwnState::Tentative(until) => Some(until),
            _ => None,
        });
        let solicitation = self.solicits().then_some(self.solicit_at);
        let next = tentative.chain(solicitation).filter(|_| self.link_is_up);
        next.chain(self.advertised.times(now)).min()
    }
}

#[cfg(test)]
mod tests;
