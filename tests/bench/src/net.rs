//! Frames that are sent and come back, as many at once as the depth says, through the interface
//! that `embassy-net` drives, in a task of their own as its runner is.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::ops::Range;
use core::task::{Context, Poll};
use core::time::Duration;

use embassy_futures::select::{Either, select};
use embassy_net_driver::{Driver, RxToken, TxToken};
use kernel::System;
use virtio_net::NetDevice;
use virtq::Event;

use crate::Failure;
use crate::stopwatch::{Stopwatch, Work};

/// One card whose frames come back to it, or two of which the second gets what the first sends.
pub type Cards = Rc<RefCell<Vec<NetDevice>>>;

/// The second of the two types for local experiments (IEEE 802, 9.2.3).
const ETHER_TYPE: [u8; 2] = [0x88, 0xb6];

/// Addresses and type.
const HEADER_LEN: usize = 14;

/// Where a frame carries its number.
const NUMBER: Range<usize> = HEADER_LEN..HEADER_LEN + 8;

/// After how long a round counts as stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// Frames of one length.
pub struct Frames {
    system: System,
    traffic: Rc<RefCell<Traffic>>,
}

/// Frames under way.
struct Traffic {
    cards: Cards,
    depth: u64,
    /// What is sent, apart from the number.
    frame: Vec<u8>,
    /// What was received last.
    received: Vec<u8>,
    /// The number of the frame that is sent next.
    next: u64,
    /// The number of the frame that arrives next.
    expected: u64,
    /// Whether something else arrived.
    mixed_up: bool,
}

impl Frames {
    /// Frames of `len` bytes, `depth` of them under way.
    pub fn new(system: &System, cards: Cards, len: usize, depth: u32) -> Result<Self, Failure> {
        let mut frame = vec![0x5a; len];
        {
            let cards = cards.borrow();
            let (Some(from), Some(to)) = (cards.first(), cards.last()) else {
                return Err("there is no network card".into());
            };
            frame[..6].copy_from_slice(&to.mac().0);
            frame[6..12].copy_from_slice(&from.mac().0);
        }
        frame[12..HEADER_LEN].copy_from_slice(&ETHER_TYPE);
        let traffic = Traffic {
            cards,
            depth: depth.into(),
            received: vec![0; len],
            frame,
            next: 0,
            expected: 0,
            mixed_up: false,
        };
        Ok(Self {
            system: system.clone(),
            traffic: Rc::new(RefCell::new(traffic)),
        })
    }

    /// Sends and receives until the frame before the one numbered `last` has come back.
    async fn exchange(&self, last: u64) -> Result<(), Failure> {
        let ended = Arc::<Event>::default();
        let (traffic, end) = (Rc::clone(&self.traffic), Arc::clone(&ended));
        self.system.spawn("frames", async move {
            poll_fn(|cx| traffic.borrow_mut().poll(last, cx)).await;
            end.raise();
        });
        let patience = self.system.platform().sleep(PATIENCE);
        match select(ended.wait(), patience).await {
            Either::First(()) if self.traffic.borrow().mixed_up => {
                Err("another frame came back".into())
            }
            Either::First(()) => Ok(()),
            Either::Second(()) => Err("frames were lost".into()),
        }
    }
}

impl Work for Frames {
    async fn perform(
        &mut self,
        operations: u64,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<u64, Failure> {
        let last = self.traffic.borrow().next + operations;
        stopwatch.time(self.exchange(last)).await?;
        Ok(operations)
    }
}

impl Traffic {
    fn poll(&mut self, last: u64, cx: &mut Context<'_>) -> Poll<()> {
        let cards = Rc::clone(&self.cards);
        let mut cards = cards.borrow_mut();
        loop {
            let sent = cards
                .first_mut()
                .is_some_and(|card| self.send(card, last, cx));
            let received = cards.last_mut().is_some_and(|card| self.receive(card, cx));
            if self.expected == last || self.mixed_up {
                return Poll::Ready(());
            }
            if !sent && !received {
                // As an IP stack does at the end of its turn; it gives the device what was sent.
                if let Some(sender) = cards.first_mut() {
                    sender.link_state(cx);
                }
                return Poll::Pending;
            }
        }
    }

    /// Sends as much as may be under way, and says whether that was anything.
    fn send(&mut self, card: &mut NetDevice, last: u64, cx: &mut Context<'_>) -> bool {
        let before = self.next;
        while self.next < last && self.next - self.expected < self.depth {
            let Some(token) = card.transmit(cx) else {
                break;
            };
            self.frame[NUMBER].copy_from_slice(&self.next.to_le_bytes());
            token.consume(self.frame.len(), |bytes| bytes.copy_from_slice(&self.frame));
            self.next += 1;
        }
        self.next > before
    }

    /// Receives what has arrived, and says whether that was anything.
    fn receive(&mut self, card: &mut NetDevice, cx: &mut Context<'_>) -> bool {
        let before = self.expected;
        while let Some((token, _)) = card.receive(cx) {
            token.consume(|bytes| {
                let ours = bytes.len() == self.received.len();
                if ours {
                    self.received.copy_from_slice(bytes);
                }
                if !ours || self.received[NUMBER] != self.expected.to_le_bytes() {
                    self.mixed_up = true;
                }
            });
            self.expected += 1;
        }
        self.expected > before
    }
}
