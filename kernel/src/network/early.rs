//! The interface under the stack: the first one, and when its device goes, the next; and what arrives before the
//! stack has an address there.
//!
//! A machine that is reached through a forwarded port is contacted as soon as its host knows it, which
//! with DHCP is before it may use its address. The stack drops such a connection attempt, and the
//! client's next one may be seconds away. So the attempts are kept and offered to the stack again once it
//! has its address; which it then also announces, because a peer that asked for it in vain waits too.
//!
//! Sources: RFC 5227, 2.3 (announcing an address); RFC 9293, 3.8.1 (retransmission of a SYN).

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::task::{Context, Poll};

use embassy_net::driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use heapless::Deque;
use spin::Mutex;
use virtio_bus::Registry;
use virtio_net::{NetDevice, RxToken as DeviceRxToken, TxToken as DeviceTxToken};
use virtq::Event;

use crate::ethernet;

/// The most connection attempts that are kept. Each is one frame without data.
const KEPT_MAX: usize = 64;

/// An interface under a stack that has no address yet.
pub(super) struct Early {
    interface: NetDevice,
    others: Arc<Registry<NetDevice>>,
    address: Arc<Address>,
    phase: Phase,
}

/// The stack's address on the interface that it has, as soon as there is one.
#[derive(Debug, Default)]
pub(super) struct Address {
    assigned: Mutex<Option<Ipv4Addr>>,
    event: Event,
    /// The interface is another one now.
    exchanged: Event,
    interface: Mutex<String>,
}

/// Connection attempts, each a whole frame.
type Kept = Deque<Vec<u8>, KEPT_MAX>;

enum Phase {
    /// There is no address yet.
    Waiting(Kept),
    /// The address is to be announced; then the attempts are offered again.
    Assigned(Ipv4Addr, Kept),
    Replaying(Kept),
    Over,
}

impl Address {
    /// The stack has an address.
    pub(super) fn assign(&self, address: Ipv4Addr) {
        *self.assigned.lock() = Some(address);
        self.event.raise();
    }

    /// The name of the interface.
    pub(super) fn interface(&self) -> String {
        self.interface.lock().clone()
    }

    /// Waits until the interface is another one.
    pub(super) async fn exchanged(&self) {
        self.exchanged.wait().await;
    }

    fn reset(&self, interface: &NetDevice) {
        *self.assigned.lock() = None;
        *self.interface.lock() = interface.name().into();
    }
}

impl Early {
    /// `interface` until its device goes, then whoever is or comes in `others`.
    pub(super) fn new(
        interface: NetDevice,
        others: &Arc<Registry<NetDevice>>,
        address: &Arc<Address>,
    ) -> Self {
        address.reset(&interface);
        Self {
            interface,
            others: Arc::clone(others),
            address: Arc::clone(address),
            phase: Phase::Waiting(Kept::new()),
        }
    }

    /// Goes on with another interface, if there is one. The stack has met the end of the one before.
    fn exchange(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(interface) = self.others.poll_next(cx) {
            self.address.reset(&interface);
            self.interface = interface;
            self.phase = Phase::Waiting(Kept::new());
            self.address.exchanged.raise();
            cx.waker().wake_by_ref();
        }
    }

    /// Goes on to the next phase when it is time for it.
    fn advance(&mut self, cx: &mut Context<'_>) {
        if let Phase::Waiting(kept) = &mut self.phase
            && self.address.event.poll_wait(cx).is_ready()
            && let Some(address) = *self.address.assigned.lock()
        {
            self.phase = Phase::Assigned(address, core::mem::take(kept));
        }
        if let Phase::Assigned(address, kept) = &mut self.phase {
            let HardwareAddress::Ethernet(mac) = self.interface.hardware_address() else {
                self.phase = Phase::Over;
                return;
            };
            let Some(token) = self.interface.transmit(cx) else {
                return;
            };
            let frame = ethernet::announcement(mac, *address);
            token.consume(frame.len(), |bytes| bytes.copy_from_slice(&frame));
            self.phase = Phase::Replaying(core::mem::take(kept));
        }
        if matches!(&self.phase, Phase::Replaying(kept) if kept.is_empty()) {
            self.phase = Phase::Over;
        }
    }
}

impl Driver for Early {
    type RxToken<'a> = EarlyRxToken<'a, DeviceRxToken<'a>>;
    type TxToken<'a> = DeviceTxToken<'a>;

    fn receive(&mut self, cx: &mut Context) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        self.advance(cx);
        match &mut self.phase {
            Phase::Replaying(kept) => {
                let transmit = self.interface.transmit(cx)?;
                let frame = kept.pop_front()?;
                Some((EarlyRxToken::Kept(frame), transmit))
            }
            Phase::Waiting(kept) | Phase::Assigned(_, kept) => {
                let (receive, transmit) = self.interface.receive(cx)?;
                Some((EarlyRxToken::Keep(receive, kept), transmit))
            }
            Phase::Over => {
                let (receive, transmit) = self.interface.receive(cx)?;
                Some((EarlyRxToken::Pass(receive), transmit))
            }
        }
    }

    fn transmit(&mut self, cx: &mut Context) -> Option<Self::TxToken<'_>> {
        self.interface.transmit(cx)
    }

    fn link_state(&mut self, cx: &mut Context) -> LinkState {
        let state = self.interface.link_state(cx);
        if self.interface.is_gone() {
            self.exchange(cx);
        }
        state
    }

    fn capabilities(&self) -> Capabilities {
        self.interface.capabilities()
    }

    fn hardware_address(&self) -> HardwareAddress {
        self.interface.hardware_address()
    }
}

/// A frame for the stack.
pub(super) enum EarlyRxToken<'a, T> {
    /// As it arrived.
    Pass(T),
    /// As it arrived, and to be kept if it is a connection attempt.
    Keep(T, &'a mut Kept),
    /// One that was kept.
    Kept(Vec<u8>),
}

impl<T: RxToken> RxToken for EarlyRxToken<'_, T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, f: F) -> R {
        match self {
            Self::Pass(token) => token.consume(f),
            Self::Keep(token, kept) => token.consume(|frame| {
                if ethernet::opens_connection(frame) && !kept.is_full() {
                    // It has been compared with the capacity.
                    let _ = kept.push_back(frame.to_vec());
                }
                f(frame)
            }),
            Self::Kept(mut frame) => f(&mut frame),
        }
    }
}
