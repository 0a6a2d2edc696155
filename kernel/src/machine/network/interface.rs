//! The interface under the stack: the first one, and when its device goes, the next; and what is
//! done there, below the stack.
//!
//! A machine that is reached through a forwarded port is contacted as soon as its host knows it,
//! which with DHCP is before it may use its address. The stack drops such a connection attempt, and
//! the client's next one may be seconds away. So the attempts are kept and offered to the stack
//! again once it has its address; which it then also announces, because a peer that asked for it in
//! vain waits too.
//!
//! Later there is a look at the few frames that do not belong to a connection: at those that begin
//! one, which [`backlog`](super::backlog) may hold back, and at ARP, for other users of the address
//! and for a gateway outside of the prefix. Here is also the end of what the stack does in one
//! turn, so that a flood of frames leaves time for the other tasks.
//!
//! Sources: RFC 5227, 2.3 and 2.4 (announcing and defending an address); RFC 9293, 3.8.1
//! (retransmission of a SYN).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::task::{Context, Poll};

use embassy_net::driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use heapless::Deque;
use virtio_bus::Registry;
use virtio_net::{NetDevice, RxToken as DeviceRxToken, TxToken as DeviceTxToken};

use super::backlog;
use super::wire::{Assigned, Wire};
use crate::pure::ethernet::{self, Arp, ArpHost, ArpOperation, Notable};
use crate::pure::ip_config::in_network;
use crate::pure::on_link::StandIn;

/// The most connection attempts that are kept. Each is one frame without data.
const KEPT_MAX: usize = 64;
/// The most frames that the stack gets in one turn.
const FRAMES_PER_TURN: usize = 64;

/// The interface that the stack has.
pub(super) struct Interface {
    device: NetDevice,
    others: Arc<Registry<NetDevice>>,
    /// How many frames the stack may still get in this turn.
    left: usize,
    below: Below,
}

/// Connection attempts, each a whole frame.
type Kept = Deque<Vec<u8>, KEPT_MAX>;

/// What looks at the frames.
pub(super) struct Below {
    wire: Arc<Wire>,
    mac: [u8; 6],
    assigned: Option<Assigned>,
    /// The stack may use IPv6.
    ipv6_is_open: bool,
    kept: Kept,
    /// The last frame was for a DHCP client.
    is_answer: bool,
}

impl Interface {
    /// `device` until it goes, then one that is or comes in `others`.
    pub(super) fn new(
        device: NetDevice,
        others: &Arc<Registry<NetDevice>>,
        wire: &Arc<Wire>,
    ) -> Self {
        let below = Below {
            wire: Arc::clone(wire),
            mac: [0; 6],
            assigned: None,
            ipv6_is_open: false,
            kept: Kept::new(),
            is_answer: false,
        };
        let mut interface = Self {
            device,
            others: Arc::clone(others),
            left: FRAMES_PER_TURN,
            below,
        };
        interface.introduce();
        interface
    }

    /// Tells the tasks which interface it is.
    fn introduce(&mut self) {
        let HardwareAddress::Ethernet(mac) = self.device.hardware_address() else {
            return;
        };
        self.below.mac = mac;
        self.below.assigned = None;
        self.below.kept = Kept::new();
        self.below.wire.set_interface(self.device.name(), mac);
    }

    /// Goes on with another interface, if there is one. The stack has met the end of the one
    /// before.
    fn exchange(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(device) = self.others.poll_next(cx) {
            self.device = device;
            self.introduce();
            cx.waker().wake_by_ref();
        }
    }

    /// Does what the tasks want, once in each turn.
    fn start_turn(&mut self, cx: &mut Context<'_>) {
        let Self { device, below, .. } = self;
        below.ipv6_is_open = below.wire.ipv6_is_open();
        let assigned = below.wire.assigned();
        if assigned != below.assigned {
            if let Some(assigned) = assigned {
                let frame = ethernet::announcement(below.mac, assigned.address);
                below.wire.send(&frame);
            } else {
                below.kept = Kept::new();
            }
            below.assigned = assigned;
        }
        while below.wire.has_frames() {
            let Some(token) = device.transmit(cx) else {
                break;
            };
            if let Some(frame) = below.wire.next_frame() {
                token.consume(frame.len(), |bytes| bytes.copy_from_slice(&frame));
            }
        }
    }
}

impl Driver for Interface {
    type RxToken<'a> = InterfaceRxToken<'a>;
    type TxToken<'a> = InterfaceTxToken<'a>;

    fn receive(&mut self, cx: &mut Context) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        if self.left == FRAMES_PER_TURN {
            self.start_turn(cx);
        }
        // The answer of a DHCP server is the last frame of its turn: its socket has room for a few
        // only, and much of what arrives is for others.
        if core::mem::take(&mut self.below.is_answer) {
            self.left = 0;
        }
        let Some(left) = self.left.checked_sub(1) else {
            cx.waker().wake_by_ref();
            return None;
        };
        self.left = left;
        if self.below.assigned.is_some() && !self.below.kept.is_empty() {
            let token = self.device.transmit(cx)?;
            let frame = self.below.kept.pop_front()?;
            return Some((InterfaceRxToken::Kept(frame), self.below.transmit(token)));
        }
        let (receive, token) = self.device.receive(cx)?;
        let transmit = self.below.transmit(token);
        Some((
            InterfaceRxToken::Arrived(receive, &mut self.below),
            transmit,
        ))
    }

    fn transmit(&mut self, cx: &mut Context) -> Option<Self::TxToken<'_>> {
        let token = self.device.transmit(cx)?;
        Some(self.below.transmit(token))
    }

    /// The end of a turn.
    fn link_state(&mut self, cx: &mut Context) -> LinkState {
        let state = self.device.link_state(cx);
        self.below.wire.set_link(state);
        if self.device.is_gone() {
            self.exchange(cx);
        }
        self.left = FRAMES_PER_TURN;
        backlog::end_turn();
        if self.below.wire.for_interface.poll_wait(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        state
    }

    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn hardware_address(&self) -> HardwareAddress {
        self.device.hardware_address()
    }
}

impl Below {
    fn transmit<'a>(&self, token: DeviceTxToken<'a>) -> InterfaceTxToken<'a> {
        InterfaceTxToken {
            token,
            stand_in: self.assigned.and_then(|assigned| assigned.stand_in),
            ipv6_is_open: self.ipv6_is_open,
        }
    }

    /// Whether the stack gets the frame, which may be changed.
    #[inline]
    fn lets_pass(&mut self, frame: &mut [u8]) -> bool {
        if ethernet::is_ipv6(frame) {
            return self.lets_ipv6_pass(frame);
        }
        match (self.assigned, ethernet::notable(frame)) {
            (Some(_), None) => true,
            (Some(assigned), Some(Notable::Arp)) => {
                self.see_arp(assigned, frame);
                true
            }
            (Some(_), Some(Notable::Syn(port))) => backlog::admits(port),
            // Not in IPv4.
            (Some(_), Some(Notable::Neighbor { .. })) => true,
            (None, noted) => {
                self.see_early(noted, frame);
                true
            }
        }
    }

    fn lets_ipv6_pass(&self, frame: &[u8]) -> bool {
        let passes = match ethernet::notable(frame) {
            Some(Notable::Neighbor { for_stack }) => {
                self.wire.hear_neighbor(frame);
                for_stack
            }
            Some(Notable::Syn(port)) => return self.ipv6_is_open && backlog::admits(port),
            Some(Notable::Arp) | None => true,
        };
        self.ipv6_is_open && passes
    }

    /// A frame that arrived before there was an address.
    #[cold]
    fn see_early(&mut self, noted: Option<Notable>, frame: &mut [u8]) {
        match noted {
            Some(Notable::Syn(_)) if !self.kept.is_full() => {
                // It has been compared with the capacity.
                let _ = self.kept.push_back(frame.to_vec());
            }
            Some(_) => {}
            None => self.is_answer = ethernet::broadcast_dhcp_answer(frame),
        }
    }

    #[cold]
    fn see_arp(&self, assigned: Assigned, frame: &mut [u8]) {
        let Some(arp) = Arp::read(frame) else { return };
        let own = assigned.address;
        if arp.sender.ip == own && arp.sender.mac != self.mac {
            self.wire.report_conflict(arp.sender.mac);
            return;
        }
        if let Some(stand_in) = assigned.stand_in {
            ethernet::exchange_in_arp(frame, stand_in.outside, stand_in.inside);
            if arp.sender.ip == stand_in.outside {
                return;
            }
        }
        // The stack answers nobody outside of its prefix, who may be on the same link nevertheless.
        let asks = arp.operation == ArpOperation::Request && arp.target.ip == own;
        if asks && !in_network(arp.sender.ip, own, assigned.prefix) {
            let answer = Arp {
                operation: ArpOperation::Reply,
                sender: ArpHost {
                    mac: self.mac,
                    ip: own,
                },
                target: arp.sender,
            };
            self.wire.send(&answer.frame(arp.sender.mac));
        }
    }
}

/// A frame for the stack.
pub(super) enum InterfaceRxToken<'a> {
    /// One that has arrived.
    Arrived(DeviceRxToken<'a>, &'a mut Below),
    /// One that was kept.
    Kept(Vec<u8>),
}

impl RxToken for InterfaceRxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        match self {
            Self::Arrived(token, below) => token.consume(|frame| {
                // A frame without anything in it is one that the stack drops.
                let len = if below.lets_pass(frame) {
                    frame.len()
                } else {
                    0
                };
                f(&mut frame[..len])
            }),
            Self::Kept(mut frame) => f(&mut frame),
        }
    }
}

/// Room for a frame of the stack's.
pub(super) struct InterfaceTxToken<'a> {
    token: DeviceTxToken<'a>,
    stand_in: Option<StandIn>,
    ipv6_is_open: bool,
}

/// More than the stack sends by itself over IPv6: reports of its multicast groups.
const REPORT_MAX: usize = 256;

impl TxToken for InterfaceTxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let exchange = |frame: &mut [u8]| {
            if let Some(StandIn { inside, outside }) = self.stand_in {
                ethernet::exchange_in_arp(frame, inside, outside);
            }
        };
        if !self.ipv6_is_open && len <= REPORT_MAX {
            let mut scratch = [0; REPORT_MAX];
            let frame = &mut scratch[..len];
            let result = f(frame);
            if !ethernet::is_ipv6(frame) {
                exchange(frame);
                self.token
                    .consume(len, |place| place.copy_from_slice(frame));
            }
            return result;
        }
        self.token.consume(len, |frame| {
            let result = f(frame);
            exchange(frame);
            result
        })
    }
}
