//! The task that gives the stack its IPv4 address, by DHCP or as the command line says, and tells
//! people.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use core::fmt::{self, Write};
use core::future::poll_fn;
use core::net::{IpAddr, Ipv4Addr};
use core::task::{Context, Poll};
use core::time::Duration;

use embassy_futures::select::select;
use embassy_net::udp::{PacketMetadata, UdpMetadata, UdpSocket};
use embassy_net::{ConfigV4, IpAddress, Ipv4Cidr, Stack, StaticConfigV4};
use embassy_time::{Instant, Timer};
use vdpa::MacAddress;

use super::wire::{Assigned, Seen, Wire};
use crate::machine::cpu;
use crate::machine::time::clock;
use crate::pure::dhcp::{self, Client, Datagram, Event, Lease, Step};
use crate::pure::ethernet;
use crate::pure::ip_config::IpConfig;
use crate::pure::on_link::reach;
use crate::pure::static_config::{NameServers, StaticConfig};

/// After how long without an address people are told.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long after it was taken an address is given up if another host has it, and is defended
/// later (RFC 5227, 2.1.1 and 2.4).
const PROBATION: Duration = Duration::from_secs(3);
/// How often an address is defended at most (RFC 5227, 2.4).
const DEFENCE_INTERVAL: Duration = Duration::from_secs(10);
/// The longest message of a server.
const MESSAGE_MAX: usize = 1500;

/// Configures the stack for as long as the machine runs.
pub(super) async fn configure(stack: Stack<'static>, config: IpConfig, wire: Arc<Wire>) {
    let mut task = Task {
        stack,
        seen: wire.seen(),
        wire,
        by: "",
        taken: None,
        defended: None,
        last: String::new(),
    };
    match config {
        IpConfig::Dhcp => task.lease().await,
        IpConfig::Static(given) => task.keep(&given).await,
    }
}

struct Task {
    stack: Stack<'static>,
    wire: Arc<Wire>,
    seen: Seen,
    /// Where the address is from.
    by: &'static str,
    /// When the stack took the address that it has.
    taken: Option<(Duration, Ipv4Addr)>,
    defended: Option<Duration>,
    /// What people were told last, which they are not told again.
    last: String,
}

/// What the task waits for.
enum News {
    /// The interface, its link, or another host with the address.
    Interface,
    Time,
    /// A message, its length and its sender.
    Message(usize, Ipv4Addr),
}

impl Task {
    /// The address is given.
    async fn keep(&mut self, given: &StaticConfig<Ipv4Addr>) {
        let address = given.address;
        loop {
            self.take(address, given.prefix, given.gateway, &given.dns);
            let exchanges = self.seen.exchanges;
            while self.seen.exchanges == exchanges {
                self.wire.for_task.wait().await;
                self.seen = self.wire.seen();
                if let Some(other) = self.seen.conflict {
                    self.defend(address, other);
                }
            }
        }
    }

    /// The address is leased.
    async fn lease(&mut self) {
        self.by = " by DHCP";
        // Room for two messages of a server, and for one of the client's.
        let (mut receive, mut transmit) = (vec![0; 2 * MESSAGE_MAX], [0; 512]);
        let mut receive_meta = [PacketMetadata::EMPTY; 4];
        let mut transmit_meta = [PacketMetadata::EMPTY; 1];
        let mut socket = UdpSocket::new(
            self.stack,
            &mut receive_meta,
            &mut receive,
            &mut transmit_meta,
            &mut transmit,
        );
        let mut message = vec![0; MESSAGE_MAX];
        loop {
            let mut client = Client::new(self.seen.mac, cpu::random());
            let mut complain_at = Some(clock::now() + PATIENCE);
            let exchanges = self.seen.exchanges;
            while self.seen.exchanges == exchanges {
                client.set_link(clock::now(), self.seen.link_is_up);
                if let Some(other) = self.seen.conflict.take() {
                    self.contest(&mut client, &mut socket, other);
                }
                let next = self.step(&mut client, &mut socket);
                let mut wake_at = next;
                if self.taken.is_none() {
                    let at = complain_at.get_or_insert(clock::now() + PATIENCE);
                    if *at <= clock::now() {
                        log::warn!("{}: no address yet", self.seen.name);
                        *at = clock::now() + PATIENCE;
                    }
                    wake_at = Some(next.map_or(*at, |next| next.min(*at)));
                } else {
                    complain_at = None;
                }
                match self.wait(&socket, wake_at, &mut message).await {
                    News::Interface => self.seen = self.wire.seen(),
                    News::Time => {}
                    News::Message(length, sender) => {
                        let event = client.receive(clock::now(), sender, &message[..length]);
                        self.heed(event, sender);
                    }
                }
            }
            self.give_up(&"the interface is gone");
        }
    }

    /// Lets the client do what it has to, and returns when it has to do more.
    fn step(&mut self, client: &mut Client, socket: &mut UdpSocket<'_>) -> Option<Duration> {
        loop {
            match client.step(clock::now()) {
                Step::Send(datagram) => send(socket, &datagram),
                Step::Lost(loss) => self.give_up(&loss),
                Step::Refused(refusal) => self.say(format!("DHCP: {refusal}")),
                Step::Wait(until) => return until,
            }
        }
    }

    async fn wait(
        &self,
        socket: &UdpSocket<'_>,
        wake_at: Option<Duration>,
        message: &mut [u8],
    ) -> News {
        let news = poll_fn(|cx| {
            if self.wire.for_task.poll_wait(cx).is_ready() {
                return Poll::Ready(News::Interface);
            }
            receive(socket, message, cx)
        });
        let Some(wake_at) = wake_at else {
            return news.await;
        };
        let wake_at = Instant::from_micros(u64::try_from(wake_at.as_micros()).unwrap_or(u64::MAX));
        match select(news, Timer::at(wake_at)).await {
            embassy_futures::select::Either::First(news) => news,
            embassy_futures::select::Either::Second(()) => News::Time,
        }
    }

    fn heed(&mut self, event: Option<Event>, sender: Ipv4Addr) {
        match event {
            Some(Event::Bound {
                lease,
                flaw,
                changed,
            }) => {
                if let Some(flaw) = flaw {
                    self.say(format!("DHCP from {sender}: {flaw}"));
                }
                if changed || self.taken.is_none() {
                    let Lease {
                        address,
                        prefix,
                        gateway,
                        dns,
                        ..
                    } = lease;
                    self.take(address, prefix, gateway, &dns);
                }
            }
            Some(Event::Refused(refusal)) => self.say(format!("DHCP from {sender}: {refusal}")),
            Some(Event::Lost(loss)) => self.give_up(&loss),
            None => {}
        }
    }

    /// Another host uses the address: a new one is given up, an old one is defended.
    fn contest(&mut self, client: &mut Client, socket: &mut UdpSocket<'_>, other: [u8; 6]) {
        let Some((since, address)) = self.taken else {
            return;
        };
        if clock::now() > since + PROBATION {
            self.defend(address, other);
        } else if let Some(datagram) = client.decline(clock::now()) {
            self.give_up(&format_args!("{} uses it", MacAddress(other)));
            send(socket, &datagram);
        }
    }

    fn defend(&mut self, address: Ipv4Addr, other: [u8; 6]) {
        let now = clock::now();
        if self.defended.is_some_and(|at| now < at + DEFENCE_INTERVAL) {
            return;
        }
        self.defended = Some(now);
        let name = &self.seen.name;
        log::warn!("{name}: {} uses {address} too", MacAddress(other));
        self.wire
            .send(&ethernet::announcement(self.seen.mac, address));
    }

    /// The stack has this address from now on.
    fn take(
        &mut self,
        address: Ipv4Addr,
        prefix: u8,
        gateway: Option<Ipv4Addr>,
        dns: &NameServers<Ipv4Addr>,
    ) {
        let (stack_prefix, stack_gateway, stand_in) = reach(address, prefix, gateway);
        self.stack.set_config_v4(ConfigV4::Static(StaticConfigV4 {
            address: Ipv4Cidr::new(address, stack_prefix),
            gateway: stack_gateway,
            dns_servers: dns.clone(),
        }));
        self.wire.assign(Some(Assigned {
            address,
            prefix: stack_prefix,
            stand_in,
        }));
        self.taken = Some((clock::now(), address));
        self.last.clear();
        let mut line = format!("{}: {address}/{prefix}{}", self.seen.name, self.by);
        for (word, value) in gateway
            .map(|gateway| ("gateway", gateway))
            .into_iter()
            .chain(dns.iter().map(|server| ("DNS", *server)))
        {
            // Strings take everything.
            let _ = write!(line, ", {word} {value}");
        }
        log::info!("{line}");
    }

    /// The stack has no address from now on.
    fn give_up(&mut self, why: &dyn fmt::Display) {
        if let Some((_, address)) = self.taken.take() {
            self.stack.set_config_v4(ConfigV4::None);
            self.wire.assign(None);
            log::warn!("{}: {address} is given up: {why}", self.seen.name);
        }
    }

    /// Warns people, unless they know.
    fn say(&mut self, text: String) {
        if self.last != text {
            log::warn!("{}: {text}", self.seen.name);
            self.last = text;
        }
    }
}

/// Sends a message. What was to be sent before and waits for its receiver's hardware address is
/// given up.
fn send(socket: &mut UdpSocket<'_>, datagram: &Datagram) {
    socket.close();
    if socket.bind(dhcp::CLIENT_PORT).is_err() {
        return;
    }
    let to = UdpMetadata {
        endpoint: (IpAddress::Ipv4(datagram.destination), dhcp::SERVER_PORT).into(),
        local_address: Some(IpAddress::Ipv4(datagram.source)),
        meta: Default::default(),
    };
    // There is room: nothing else is in the buffer. And what is lost is sent again.
    let mut cx = Context::from_waker(core::task::Waker::noop());
    let _ = socket.poll_send_to(&datagram.bytes, to, &mut cx);
}

fn receive(socket: &UdpSocket<'_>, message: &mut [u8], cx: &mut Context<'_>) -> Poll<News> {
    loop {
        match socket.poll_recv_from(message, cx) {
            Poll::Ready(Ok((length, from))) => {
                if let IpAddr::V4(sender) = from.endpoint.addr.into() {
                    return Poll::Ready(News::Message(length, sender));
                }
            }
            // It was too long, and is dropped.
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return Poll::Pending,
        }
    }
}
