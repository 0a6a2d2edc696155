//! Which frames pass: the first rule that fits a frame decides.

/// Types of frames (IEEE 802.3, 3.2.6).
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
/// Protocols with ports (IANA, Assigned Internet Protocol Numbers).
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
}

/// A rule. What it does not say fits everything.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub ethertype: Option<u16>,
    /// Of IPv4, or of IPv6 without extension headers.
    pub protocol: Option<u8>,
    /// Of TCP or UDP, where the frame comes from or goes to.
    pub port: Option<u16>,
    pub verdict: Verdict,
}

impl Rule {
    /// A rule that fits everything.
    pub const fn any(verdict: Verdict) -> Self {
        Self {
            ethertype: None,
            protocol: None,
            port: None,
            verdict,
        }
    }

    fn fits(&self, frame: &Fields) -> bool {
        self.ethertype.is_none_or(|it| it == frame.ethertype)
            && self.protocol.is_none_or(|it| frame.protocol == Some(it))
            && self
                .port
                .is_none_or(|it| frame.ports.is_some_and(|ports| ports.contains(&it)))
    }
}

/// Rules in their order. A frame that none fits is dropped, and so is one that is no frame.
#[derive(Clone, Copy, Debug)]
pub struct Rules(pub &'static [Rule]);

impl Rules {
    /// What becomes of an Ethernet frame.
    pub fn judge(&self, frame: &[u8]) -> Verdict {
        let Some(fields) = Fields::of(frame) else {
            return Verdict::Drop;
        };
        let rule = self.0.iter().find(|rule| rule.fits(&fields));
        rule.map_or(Verdict::Drop, |rule| rule.verdict)
    }
}

/// What a frame says of itself, as far as it is there.
struct Fields {
    ethertype: u16,
    protocol: Option<u8>,
    ports: Option<[u16; 2]>,
}

impl Fields {
    fn of(frame: &[u8]) -> Option<Self> {
        let mut at = 12;
        let mut ethertype = word(frame, at)?;
        if ethertype == VLAN {
            at += 4;
            ethertype = word(frame, at)?;
        }
        let packet = frame.get(at + 2..)?;
        let (protocol, data) = match ethertype {
            IPV4 => ipv4(packet),
            IPV6 => (packet.get(6).copied(), packet.get(40..)),
            _ => (None, None),
        };
        let has_ports = matches!(protocol, Some(TCP | UDP));
        let data = data.filter(|_| has_ports);
        let ports = data.and_then(|data| Some([word(data, 0)?, word(data, 2)?]));
        Some(Self {
            ethertype,
            protocol,
            ports,
        })
    }
}

/// The protocol, and the data of a packet unless it is a later fragment (RFC 791, 3.1).
fn ipv4(packet: &[u8]) -> (Option<u8>, Option<&[u8]>) {
    let header = packet.first().map(|first| usize::from(first & 0xf) * 4);
    let is_first = word(packet, 6).is_some_and(|fragment| fragment & 0x1fff == 0);
    let header = header.filter(|len| is_first && *len >= 20);
    let data = header.and_then(|len| packet.get(len..));
    (packet.get(9).copied(), data)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*word))
}
