//! Frames on their way through a card: from a transmit queue to a receive queue of its own, or over
//! a cable to and from another one.

use core::mem;

use virtq::device::Chain;

use crate::model::{Budget, Turn};
use crate::sim_queue::SimQueue;

use super::cable::CableEnd;
use super::card::NetModel;
use super::frame::Frame;
use super::places::Forwarding;
use super::receive::{Delivery, deliver};
use super::{Link, Overrun, Wiring};

/// What has become of a frame that was to be sent.
enum Sent {
    /// It is away, or lost and counted.
    Done,
    /// There is no room for it yet.
    Wait,
}

impl NetModel {
    /// Sends and receives.
    pub(super) fn serve_data(
        &mut self,
        ports: &mut [Option<SimQueue>],
        budget: &mut Budget,
    ) -> Turn {
        // Out of the way of what changes the rest of the card, and put back below.
        let wiring = mem::take(&mut self.wiring);
        let turn = match &wiring {
            Wiring::Loopback => self.loop_back(ports, budget),
            Wiring::Cable(end) => {
                // Neither direction keeps the other one waiting.
                let received = self.receive(end, ports, &mut Budget::new());
                match self.send(end, ports, budget) {
                    Turn::Idle => received,
                    Turn::More => Turn::More,
                }
            }
        };
        self.wiring = wiring;
        turn
    }

    /// Every frame is received as soon as it is sent: none is ever between the queues.
    fn loop_back(&mut self, ports: &mut [Option<SimQueue>], budget: &mut Budget) -> Turn {
        // Out of the way, too.
        let mut frame = self.forwarding.looped.take();
        let looped = frame.get_or_insert_with(|| Frame::new(self.mtu));
        let turn = self.for_each_pair(ports, budget, |card, pair, receive, transmit, chain| {
            card.loop_frame(looped, pair, receive, transmit, chain)
        });
        self.forwarding.looped = frame;
        turn
    }

    fn send(
        &mut self,
        end: &CableEnd,
        ports: &mut [Option<SimQueue>],
        budget: &mut Budget,
    ) -> Turn {
        let room = end.room(&mut self.forwarding.places);
        let mut full = false;
        let turn = self.for_each_pair(ports, budget, |card, pair, _, transmit, chain| {
            let sent = card.send_frame(room, pair, transmit, chain);
            full |= matches!(sent, Sent::Wait);
            sent
        });
        end.send(&mut self.forwarding.leaving);
        if full && !end.wait_for_room() {
            return Turn::More;
        }
        turn
    }

    /// Offers `send` one chain after the other of every pair in use, with the pair's ports.
    fn for_each_pair(
        &mut self,
        ports: &mut [Option<SimQueue>],
        budget: &mut Budget,
        mut send: impl FnMut(&mut Self, usize, Option<&mut SimQueue>, &mut SimQueue, &Chain) -> Sent,
    ) -> Turn {
        for _ in 0..self.control.pairs {
            let pair = usize::from(self.next % self.control.pairs);
            self.next = (self.next + 1) % self.control.pairs;
            let [receive, transmit] = ports
                .get_disjoint_mut([2 * pair, 2 * pair + 1])
                .expect("every pair has two queues");
            let Some(transmit) = transmit else {
                continue;
            };
            loop {
                if budget.is_spent() {
                    return Turn::More;
                }
                let Some(chain) = transmit.take() else {
                    break;
                };
                budget.pay(chain.readable_len());
                match send(self, pair, receive.as_mut(), transmit, &chain) {
                    Sent::Done => transmit.complete(chain, 0),
                    Sent::Wait => {
                        transmit.put_back(chain);
                        break;
                    }
                }
            }
        }
        Turn::Idle
    }

    fn loop_frame(
        &mut self,
        frame: &mut Frame,
        pair: usize,
        receive: Option<&mut SimQueue>,
        transmit: &mut SimQueue,
        chain: &Chain,
    ) -> Sent {
        let counters = &mut self.transmitted[pair];
        if frame.fill(transmit, chain, self.features).is_err() {
            counters.errors += 1;
            return Sent::Done;
        }
        if self.link == Link::Down {
            counters.drops += 1;
            return Sent::Done;
        }
        let len = frame.payload_len();
        match self.take_in(frame, pair, receive) {
            Sent::Done => {
                let counters = &mut self.transmitted[pair];
                counters.packets += 1;
                counters.bytes += len;
                Sent::Done
            }
            Sent::Wait => Sent::Wait,
        }
    }

    /// Puts a frame among those that leave, of which there may be `room`; nobody receives them if
    /// that is nothing.
    fn send_frame(
        &mut self,
        room: Option<usize>,
        pair: usize,
        transmit: &mut SimQueue,
        chain: &Chain,
    ) -> Sent {
        let full = room.is_some_and(|room| self.forwarding.leaving.len() >= room);
        if full && self.overrun == Overrun::Wait && self.link == Link::Up {
            return Sent::Wait;
        }
        let place = self.forwarding.places.pop();
        let mut frame = place.unwrap_or_else(|| Frame::new(self.mtu));
        let counters = &mut self.transmitted[pair];
        let read = frame.fill(transmit, chain, self.features);
        if read.is_err() || room.is_none() || full || self.link == Link::Down {
            self.forwarding.places.push(frame);
            match read {
                Ok(()) => counters.drops += 1,
                Err(_) => counters.errors += 1,
            }
            return Sent::Done;
        }
        counters.packets += 1;
        counters.bytes += frame.payload_len();
        frame.pair = pair;
        self.forwarding.leaving.push_back(frame);
        Sent::Done
    }

    /// Takes frames out of the cable, as long as there are buffers for them.
    fn receive(
        &mut self,
        end: &CableEnd,
        ports: &mut [Option<SimQueue>],
        budget: &mut Budget,
    ) -> Turn {
        let Forwarding {
            arrived, consumed, ..
        } = &mut self.forwarding;
        if arrived.is_empty() {
            end.receive(arrived, consumed);
        }
        while let Some(mut frame) = self.forwarding.arrived.pop_front() {
            if budget.is_spent() {
                self.forwarding.arrived.push_front(frame);
                return Turn::More;
            }
            budget.pay(frame.payload_len());
            let pair = frame.pair % usize::from(self.control.pairs);
            let port = ports.get_mut(2 * pair).and_then(Option::as_mut);
            match self.take_in(&mut frame, pair, port) {
                Sent::Done => self.forwarding.consumed.push(frame),
                Sent::Wait => {
                    self.forwarding.arrived.push_front(frame);
                    break;
                }
            }
        }
        Turn::Idle
    }

    /// Gives a frame to the driver, if it is for this card.
    #[inline(always)]
    fn take_in(&mut self, frame: &mut Frame, pair: usize, port: Option<&mut SimQueue>) -> Sent {
        let counters = &mut self.received[pair];
        let wanted = self.link == Link::Up && self.control.filter.accepts(frame.destination());
        let Some(port) = port.filter(|_| wanted) else {
            counters.drops += 1;
            return Sent::Done;
        };
        let merged = &mut self.forwarding.merged;
        match deliver(frame, port, self.features, merged, counters) {
            Delivery::Done => Sent::Done,
            // A queue that the driver has broken gets no buffers any more; the turn ends with a
            // request for reset.
            Delivery::NoBuffer if self.overrun == Overrun::Wait => Sent::Wait,
            Delivery::NoBuffer => {
                counters.overruns += 1;
                Sent::Done
            }
        }
    }
}
