//! The states of a client (RFC 2131, 4.4).

#[cfg(test)]
mod tests;

use core::net::Ipv4Addr;
use core::time::Duration;

use super::lease::{Flaw, Lease, Refusal};
use super::message::{Reply, Request, kind, option};
use super::step::{Datagram, Event, Loss, Step};

/// The longest wait between two requests to find a server.
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// How often a server is asked to confirm what it has offered, or leased before.
const CONFIRMATIONS: u32 = 4;
/// The shortest wait between two requests to renew a lease.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// How long nothing is asked for after an address that somebody else uses (RFC 2131, 3.1).
const WAIT_AFTER_DECLINE: Duration = Duration::from_secs(10);

/// A client. Times are counted from some start that is the same for all of them.
#[derive(Debug)]
pub(crate) struct Client {
    mac: [u8; 6],
    random: u64,
    link_is_up: bool,
    state: State,
    transaction: u32,
    /// When the transaction began.
    began: Duration,
    /// How often has been asked in this state.
    asked: u32,
    /// How often in a row a server has said no.
    refused: u32,
    /// When there is something to do.
    due: Option<Duration>,
    held: Option<Held>,
}

/// A lease in use.
#[derive(Debug)]
struct Held {
    lease: Lease,
    /// When to renew it, to rebind it, and when it ends; it may have no end.
    times: Option<[Duration; 3]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// About to look for a server.
    Init,
    Selecting,
    /// Takes this offer.
    Requesting(Lease),
    /// Asks whether the lease from before the link went down still holds (`INIT-REBOOT`).
    Confirming,
    Bound,
    Renewing,
    Rebinding,
}

impl Client {
    /// A client that knows nothing, for an interface with this hardware address. `random` tells it
    /// apart from others.
    pub(crate) fn new(mac: [u8; 6], random: u64) -> Self {
        Self {
            mac,
            random,
            link_is_up: false,
            state: State::Init,
            transaction: 0,
            began: Duration::ZERO,
            asked: 0,
            refused: 0,
            due: None,
            held: None,
        }
    }

    /// The link is up or down from now on.
    pub(crate) fn set_link(&mut self, now: Duration, is_up: bool) {
        if is_up && !self.link_is_up {
            let state = if self.held.is_some() {
                State::Confirming
            } else {
                State::Init
            };
            self.begin(state, now, now);
        }
        self.link_is_up = is_up;
    }

    /// What is to be done at the time `now`. Called again until there is nothing.
    pub(crate) fn step(&mut self, now: Duration) -> Step {
        let end = self.times().map(|[_, _, end]| end);
        if end.is_some_and(|end| end <= now) {
            self.held = None;
            self.begin(State::Init, now, now);
            return Step::Lost(Loss::Expired);
        }
        let due = self.due.filter(|_| self.link_is_up);
        if due.is_none_or(|due| due > now) {
            return Step::Wait(due.into_iter().chain(end).min());
        }
        match self.state {
            State::Init => {
                self.begin(State::Selecting, now, now);
                self.step(now)
            }
            State::Selecting => {
                self.ask_again(now);
                self.send(now, kind::DISCOVER, None, None)
            }
            State::Requesting(_) if self.asked == CONFIRMATIONS => {
                self.begin(State::Init, now, now);
                Step::Refused(Refusal::Silence)
            }
            State::Requesting(ref offer) => {
                let (address, server) = (offer.address, offer.server);
                self.ask_again(now);
                self.send(now, kind::REQUEST, Some(address), Some(server))
            }
            State::Confirming if self.asked == CONFIRMATIONS => {
                // Nobody denies it, so it holds until its time is over (RFC 2131, 3.2).
                self.rest();
                self.step(now)
            }
            State::Confirming => {
                let address = self.held.as_ref().map(|held| held.lease.address);
                self.ask_again(now);
                self.send(now, kind::REQUEST, address, None)
            }
            State::Bound => {
                self.begin(State::Renewing, now, now);
                self.step(now)
            }
            State::Renewing | State::Rebinding => self.renew(now),
        }
    }

    /// A message from `sender` has come.
    pub(crate) fn receive(
        &mut self,
        now: Duration,
        sender: Ipv4Addr,
        bytes: &[u8],
    ) -> Option<Event> {
        let reply = Reply::new(bytes, self.mac, self.transaction)?;
        match (&self.state, reply.kind()?) {
            (State::Selecting, kind::OFFER) => match Lease::read(&reply, sender, None) {
                Ok((offer, _)) => {
                    self.state = State::Requesting(offer);
                    self.asked = 0;
                    self.due = Some(now);
                    None
                }
                Err(refusal) => Some(Event::Refused(refusal)),
            },
            (State::Requesting(offer), kind::ACK) => {
                let offer = offer.clone();
                match Lease::read(&reply, sender, Some(&offer)) {
                    Ok((lease, flaw)) => Some(self.bind(now, lease, flaw)),
                    Err(refusal) => Some(self.refuse(now, refusal)),
                }
            }
            (State::Requesting(offer), kind::NAK) if is_from(&reply, offer) => {
                Some(self.refuse(now, Refusal::Withdrawn))
            }
            (State::Confirming | State::Renewing | State::Rebinding, kind::ACK) => {
                let before = self.held.as_ref().map(|held| &held.lease);
                match Lease::read(&reply, sender, before) {
                    Ok((lease, flaw)) => Some(self.bind(now, lease, flaw)),
                    Err(refusal) => Some(Event::Refused(refusal)),
                }
            }
            (State::Renewing, kind::NAK)
                if !self
                    .held
                    .as_ref()
                    .is_some_and(|held| is_from(&reply, &held.lease)) =>
            {
                None
            }
            (State::Confirming | State::Renewing | State::Rebinding, kind::NAK) => {
                self.held = None;
                self.begin_later(now);
                Some(Event::Lost(Loss::Withdrawn))
            }
            _ => None,
        }
    }

    /// Somebody else uses the address: the server is told, and after a while the client begins
    /// anew.
    pub(crate) fn decline(&mut self, now: Duration) -> Option<Datagram> {
        let lease = self.held.take()?.lease;
        self.begin(State::Init, now, now + WAIT_AFTER_DECLINE);
        let request = Request {
            kind: kind::DECLINE,
            mac: self.mac,
            transaction: self.transaction,
            seconds: 0,
            address: None,
            requested: Some(lease.address),
            server: Some(lease.server),
        };
        Some(Datagram {
            bytes: request.bytes(),
            source: Ipv4Addr::UNSPECIFIED,
            destination: Ipv4Addr::BROADCAST,
        })
    }

    /// Asks for more time: its server until T2, then everybody.
    fn renew(&mut self, now: Duration) -> Step {
        let (Some(held), Some([_, rebind, end])) = (&self.held, self.times()) else {
            self.begin(State::Init, now, now);
            return self.step(now);
        };
        let (own, server) = (held.lease.address, held.lease.server);
        let (limit, destination) = if now < rebind {
            (rebind, server)
        } else {
            self.state = State::Rebinding;
            (end, Ipv4Addr::BROADCAST)
        };
        // RFC 2131, 4.4.5, but the last wait may be shorter: leases of seconds exist.
        let wait = (limit.saturating_sub(now) / 2).max(SHORTEST_WAIT);
        self.due = Some((now + wait).min(limit));
        self.send_to(now, kind::REQUEST, Some(own), destination, None, None)
    }

    fn bind(&mut self, now: Duration, lease: Lease, flaw: Option<Flaw>) -> Event {
        let before = self.held.as_ref().map(|held| &held.lease);
        let changed = !before.is_some_and(|before| before.configures_like(&lease));
        self.held = Some(Held {
            times: lease.times.map(|times| times.map(|time| now + time)),
            lease: lease.clone(),
        });
        self.refused = 0;
        self.rest();
        Event::Bound {
            lease,
            flaw,
            changed,
        }
    }

    fn refuse(&mut self, now: Duration, refusal: Refusal) -> Event {
        self.begin_later(now);
        Event::Refused(refusal)
    }

    /// Nothing is to be done until the lease is to be renewed.
    fn rest(&mut self) {
        self.state = State::Bound;
        self.due = self.times().map(|[renew, _, _]| renew);
    }

    /// Begins anew; the later, the more often servers have said no.
    fn begin_later(&mut self, now: Duration) {
        let wait = wait(self.refused);
        self.refused += 1;
        self.begin(State::Init, now, now + wait);
    }

    /// Begins a transaction. What is still under way of the one before is not taken any more.
    fn begin(&mut self, state: State, now: Duration, due: Duration) {
        self.state = state;
        self.transaction = self.draw();
        self.began = now;
        self.asked = 0;
        self.due = Some(due);
    }

    /// The same transaction goes on, so that a slow answer to an earlier request is taken, too.
    fn ask_again(&mut self, now: Duration) {
        // Up to a quarter of a second more, so that many clients do not go on asking at the same
        // moment.
        let chance = Duration::from_millis(u64::from(self.draw() >> 24));
        self.due = Some(now + wait(self.asked) + chance);
        self.asked += 1;
    }

    fn send(
        &self,
        now: Duration,
        kind: u8,
        requested: Option<Ipv4Addr>,
        server: Option<Ipv4Addr>,
    ) -> Step {
        self.send_to(now, kind, None, Ipv4Addr::BROADCAST, requested, server)
    }

    fn send_to(
        &self,
        now: Duration,
        kind: u8,
        address: Option<Ipv4Addr>,
        destination: Ipv4Addr,
        requested: Option<Ipv4Addr>,
        server: Option<Ipv4Addr>,
    ) -> Step {
        let seconds = now.saturating_sub(self.began).as_secs();
        let request = Request {
            kind,
            mac: self.mac,
            transaction: self.transaction,
            seconds: u16::try_from(seconds).unwrap_or(u16::MAX),
            address,
            requested,
            server,
        };
        Step::Send(Datagram {
            bytes: request.bytes(),
            source: address.unwrap_or(Ipv4Addr::UNSPECIFIED),
            destination,
        })
    }

    fn times(&self) -> Option<[Duration; 3]> {
        self.held.as_ref()?.times
    }

    /// A number that nobody guesses who has not seen the ones before.
    fn draw(&mut self) -> u32 {
        // Knuth's generator (TAOCP vol. 2, 3.3.4), whose upper half is the better one.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 32) as u32
    }
}

/// How long to wait for an answer after having asked `asked` times before.
fn wait(asked: u32) -> Duration {
    Duration::from_secs(1 << asked.min(4)).min(LONGEST_WAIT)
}

/// Whether a reply is from the server of a lease, or does not say.
fn is_from(reply: &Reply<'_>, lease: &Lease) -> bool {
    let server = reply.address_option(option::SERVER);
    server.is_none_or(|server| server == lease.server)
}
