//! A DHCP server that does what it is told, right or wrong.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::network::wire::{GUEST_MAC, Wire, ethernet, ipv4, mac_of, udp};

pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
pub const GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 50);

pub const DISCOVER: u8 = 1;
pub const OFFER: u8 = 2;
pub const REQUEST: u8 = 3;
pub const DECLINE: u8 = 4;
pub const ACK: u8 = 5;
pub const NAK: u8 = 6;

/// What a client has asked.
#[derive(Clone, Debug)]
pub struct Ask {
    pub kind: u8,
    pub client: Ipv4Addr,
    pub requested: Option<Ipv4Addr>,
    pub server: Option<Ipv4Addr>,
    pub from: Ipv4Addr,
    pub broadcast: bool,
    message: Message,
}

/// A whole message, which nobody wants to read in a report.
#[derive(Clone)]
struct Message(Vec<u8>);

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Options, as a list.
#[derive(Clone, Debug)]
pub struct Options(pub Vec<(u8, Vec<u8>)>);

impl Options {
    /// What a usual server says.
    pub fn usual() -> Self {
        let empty = Self(Vec::new());
        empty
            .with(54, SERVER.octets())
            .with(51, 120u32.to_be_bytes())
            .with(1, [255, 255, 255, 0])
            .with(3, SERVER.octets())
    }

    /// With this option in place of one with the same code.
    pub fn with(self, code: u8, value: impl AsRef<[u8]>) -> Self {
        let mut options = self.without(code);
        options.0.push((code, value.as_ref().to_vec()));
        options
    }

    pub fn without(mut self, code: u8) -> Self {
        self.0.retain(|(other, _)| *other != code);
        self
    }

    pub fn lease(self, seconds: u32) -> Self {
        self.with(51, seconds.to_be_bytes())
    }

    /// A lease that is renewed after a second.
    pub fn renewed_soon(self, seconds: u32) -> Self {
        let times = self.with(58, 1u32.to_be_bytes());
        times.with(59, (seconds - 2).to_be_bytes()).lease(seconds)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (code, value) in &self.0 {
            bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
            bytes.extend(value);
        }
        bytes.push(255);
        bytes
    }
}

/// What the server has heard, and what it will say.
#[derive(Debug)]
pub struct Script {
    pub asks: Vec<Ask>,
    due: Vec<(Instant, Vec<u8>)>,
}

impl Script {
    pub fn new() -> Self {
        Self {
            asks: Vec::new(),
            due: Vec::new(),
        }
    }

    /// How many messages of this kind have come.
    pub fn count(&self, kind: u8) -> usize {
        self.asks.iter().filter(|ask| ask.kind == kind).count()
    }

    /// The message of a client in a frame.
    pub fn hear(&mut self, frame: &[u8]) -> Option<Ask> {
        let message = frame.get(42..).filter(|message| message.len() > 240)?;
        if frame[12..14] != [8, 0] || frame[23] != 17 || frame[36..38] != [0, 67] {
            return None;
        }
        let option = |wanted: u8| {
            let mut rest = &message[240..];
            while let [code, length, behind @ ..] = rest {
                let (value, behind) = behind.split_at_checked(usize::from(*length))?;
                if *code == wanted {
                    return Some(value.to_vec());
                }
                rest = behind;
            }
            None
        };
        let address = |bytes: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap());
        let ask = Ask {
            kind: option(53)?[0],
            client: address(&message[12..16]),
            requested: option(50).map(|bytes| address(&bytes)),
            server: option(54).map(|bytes| address(&bytes)),
            from: address(&frame[26..30]),
            broadcast: message[10] & 0x80 != 0,
            message: Message(message.to_vec()),
        };
        self.asks.push(ask.clone());
        Some(ask)
    }

    /// Sends what is due.
    pub fn speak(&mut self, wire: &Wire) {
        let now = Instant::now();
        for (_, frame) in self.due.extract_if(.., |(at, _)| *at <= now) {
            wire.send(&frame);
        }
    }

    /// Answers with a broadcast.
    pub fn answer(&mut self, ask: &Ask, kind: u8, address: Ipv4Addr, options: &Options) {
        let bytes = message(ask, kind, address, options);
        self.say(Duration::ZERO, SERVER, Ipv4Addr::BROADCAST, &bytes);
    }

    /// Sends a message later, from and to these addresses.
    pub fn say(&mut self, wait: Duration, from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) {
        let packet = ipv4(from, to, 17, &udp(67, 68, message));
        let mac = if to.is_broadcast() {
            [0xff; 6]
        } else {
            GUEST_MAC
        };
        let frame = ethernet(mac, mac_of(from), 0x800, &packet);
        self.due.push((Instant::now() + wait, frame));
    }

    /// What a server does that has one address to lease: offers it, and confirms it.
    pub fn lease(&mut self, ask: &Ask, address: Ipv4Addr, options: &Options) {
        match ask.kind {
            DISCOVER => self.answer(ask, OFFER, address, options),
            REQUEST => self.answer(ask, ACK, address, options),
            _ => {}
        }
    }
}

/// The answer to a message.
pub fn message(ask: &Ask, kind: u8, address: Ipv4Addr, options: &Options) -> Vec<u8> {
    let mut message = fixed(ask, address);
    message.extend([53, 1, kind]);
    message.extend(options.bytes());
    message.resize(message.len().max(300), 0);
    message
}

/// The part of an answer before the options.
pub fn fixed(ask: &Ask, address: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![2, 1, 6, 0];
    message.extend(&ask.message.0[4..8]);
    message.extend([0, 0, 0x80, 0, 0, 0, 0, 0]);
    message.extend(address.octets());
    message.extend(SERVER.octets());
    message.extend([0; 4]);
    message.extend(&ask.message.0[28..44]);
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63]);
    message
}
