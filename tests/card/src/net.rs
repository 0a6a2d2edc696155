//! The network function: frames between the rings and the wire, and the control queue.
//!
//! It offers no offload and does not merge buffers. Receive buffers are taken ahead of the frames,
//! as the hardware does. Source: VIRTIO 1.2, 5.1.

use virtio::net::{Ctrl, F, ctrl};

use crate::engine::{Engine, Trouble};
use crate::pages::Pages;
use crate::plan::{Plan, bits};
use crate::violations::Violations;
use crate::wire::Wire;

/// The header with `VERSION_1`.
const HEADER: usize = 12;
/// More than this is no frame.
const FRAME_MAX: usize = 65_536;
const OK: u8 = 0;
const ERR: u8 = 1;

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frames {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) dropped: u64,
}

/// What the driver has made of the card by commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetSettings {
    /// The address.
    pub mac: [u8; 6],
    /// Takes every frame.
    pub promiscuous: bool,
    /// Takes every multicast frame.
    pub all_multicast: bool,
    /// The pairs of queues in use.
    pub pairs: u16,
}

impl NetSettings {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            mac: plan.mac,
            promiscuous: false,
            all_multicast: false,
            pairs: 1,
        }
    }
}

/// What a pair of queues works with.
pub(crate) struct Pair<'a> {
    pub(crate) index: u16,
    pub(crate) receive: Option<&'a mut Engine>,
    pub(crate) transmit: Option<&'a mut Engine>,
    /// How often each was notified.
    pub(crate) kicks: [u64; 2],
    pub(crate) prefetch: u16,
    pub(crate) pages: &'a mut Pages,
    pub(crate) violations: &'a mut Violations,
    pub(crate) frames: &'a mut Frames,
}

impl Pair<'_> {
    /// One frame in each direction. Says how much was done, or which queue is in trouble.
    pub(crate) fn serve(&mut self, wire: &mut dyn Wire) -> Result<usize, (u16, Trouble)> {
        let (receive, transmit) = (2 * self.index, 2 * self.index + 1);
        let mut done = self.prefetch().map_err(|trouble| (receive, trouble))?;
        done += usize::from(self.send(wire).map_err(|trouble| (transmit, trouble))?);
        done += usize::from(self.receive(wire).map_err(|trouble| (receive, trouble))?);
        Ok(done)
    }

    /// Takes receive buffers before there is anything to put into them.
    fn prefetch(&mut self) -> Result<usize, Trouble> {
        let mut done = 0;
        if let Some(receive) = &mut self.receive {
            while receive.held.len() < usize::from(self.prefetch)
                && receive.take(self.kicks[0], self.violations)?
            {
                done += 1;
            }
        }
        Ok(done)
    }

    fn send(&mut self, wire: &mut dyn Wire) -> Result<bool, Trouble> {
        let ready = self
            .receive
            .as_ref()
            .map_or(0, |receive| receive.held.len());
        let Some(transmit) = &mut self.transmit else {
            return Ok(false);
        };
        if !wire.takes(self.index, ready) || !transmit.take(self.kicks[1], self.violations)? {
            return Ok(false);
        }
        let Some(chain) = transmit.held.pop_front() else {
            return Ok(false);
        };
        let len = usize::try_from(chain.readable_len()).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(HEADER + FRAME_MAX)];
        let read = transmit.read(&chain, 0, &mut bytes);
        match bytes[..read].split_at_checked(HEADER) {
            Some((header, frame)) if read == len => {
                // VIRTIO 1.2, 5.1.6.2.1: what was not negotiated is zero.
                if header[..10].iter().any(|byte| *byte != 0) {
                    self.violations
                        .note(format!("a frame with header {header:x?}"));
                }
                wire.send(self.index, frame);
                self.frames.sent += 1;
            }
            _ => self
                .violations
                .note(format!("a frame of {len} bytes, {read} of them there")),
        }
        transmit.complete(chain, 0, self.violations)?;
        Ok(true)
    }

    fn receive(&mut self, wire: &mut dyn Wire) -> Result<bool, Trouble> {
        let Some(receive) = &mut self.receive else {
            return Ok(false);
        };
        let Some(chain) = receive.held.pop_front() else {
            return Ok(false);
        };
        let Some(frame) = wire.receive(self.index) else {
            receive.held.push_front(chain);
            return Ok(false);
        };
        let mut bytes = vec![0; HEADER];
        // One buffer (VIRTIO 1.2, 5.1.6.4.1).
        bytes[10] = 1;
        bytes.extend(frame);
        if chain.writable_len() < bytes.len() as u64 {
            self.frames.dropped += 1;
            receive.held.push_front(chain);
            return Ok(true);
        }
        let written = receive.write(&chain, 0, &bytes, self.pages, self.violations);
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        receive.complete(chain, written, self.violations)?;
        self.frames.received += 1;
        Ok(true)
    }
}

/// What commands are there, and what they may ask for.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// What was negotiated.
    pub(crate) features: u128,
    pub(crate) pairs: u16,
}

impl Limits {
    fn has(self, feature: F) -> bool {
        self.features & bits(feature) != 0
    }
}

/// Answers one command, if there is one.
pub(crate) fn serve_control(
    engine: &mut Engine,
    kicks: u64,
    limits: Limits,
    settings: &mut NetSettings,
    pages: &mut Pages,
    violations: &mut Violations,
) -> Result<bool, Trouble> {
    if !engine.take(kicks, violations)? {
        return Ok(false);
    }
    let Some(chain) = engine.held.pop_front() else {
        return Ok(false);
    };
    let len = usize::try_from(chain.readable_len()).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len.min(FRAME_MAX)];
    let read = engine.read(&chain, 0, &mut bytes);
    let ack = match settings.obey(&bytes[..read], limits) {
        Some(()) => OK,
        None => ERR,
    };
    let written = engine.write(&chain, 0, &[ack], pages, violations);
    engine.complete(chain, u32::try_from(written).unwrap_or(0), violations)?;
    Ok(true)
}

impl NetSettings {
    /// Does what a command says (VIRTIO 1.2, 5.1.6.5); `None` if it makes no sense.
    fn obey(&mut self, command: &[u8], limits: Limits) -> Option<()> {
        let (&[class, command], data) = command.split_first_chunk()?;
        match Ctrl::try_from(class).ok()? {
            Ctrl::Rx if limits.has(F::CTRL_RX) => {
                let on = match data {
                    [0] => false,
                    [1] => true,
                    _ => return None,
                };
                match ctrl::Rx::try_from(command).ok()? {
                    ctrl::Rx::Promisc => self.promiscuous = on,
                    ctrl::Rx::Allmulti => self.all_multicast = on,
                    _ => return None,
                }
            }
            Ctrl::Mac
                if command == u8::from(ctrl::Mac::AddrSet) && limits.has(F::CTRL_MAC_ADDR) =>
            {
                let mac: [u8; 6] = data.try_into().ok()?;
                // Neither a group nor nobody.
                if mac[0] & 1 != 0 || mac == [0; 6] {
                    return None;
                }
                self.mac = mac;
            }
            Ctrl::Mac if command == u8::from(ctrl::Mac::TableSet) && limits.has(F::CTRL_RX) => {
                let rest = skip_table(skip_table(data)?)?;
                return rest.is_empty().then_some(());
            }
            Ctrl::Mq if command == u8::from(ctrl::Mq::VqPairsSet) && limits.has(F::MQ) => {
                let count = u16::from_le_bytes(data.try_into().ok()?);
                if !(1..=limits.pairs).contains(&count) {
                    return None;
                }
                self.pairs = count;
            }
            _ => return None,
        }
        Some(())
    }
}

/// What comes behind a number of addresses and the addresses.
fn skip_table(data: &[u8]) -> Option<&[u8]> {
    let (count, data) = data.split_first_chunk()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    data.get(count.checked_mul(6)?..)
}
