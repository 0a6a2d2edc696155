//! The device side before a driver that writes what it likes, whenever it likes, and takes mappings
//! away.
//!
//! Every answer of the queue is compared with books of what was taken and completed.

use std::collections::VecDeque;

use virtq::device::{Broken, Chain, CompleteError, DeviceConfig, DeviceQueue, NewError, PopError};
use virtq::{RingState, Segment};

use super::guest::{Guest, LEN, PAGE};
use super::input::Input;
use super::layout::{config, is_impossible, written_parts};
use super::offers::{Offers, TIDY, address};
use super::spans::{addresses, held, most_pieces, offset};

/// Runs one program.
///
/// # Panics
/// If the device side breaks a promise.
pub fn hostile_driver(data: &[u8]) {
    let mut input = Input::new(data);
    let guest = Guest::new(input.flag());
    let Some(mut trial) = Trial::new(&guest, &mut input) else {
        return;
    };
    while !input.is_empty() {
        trial.step(&mut input);
        trial.compare();
    }
}

struct Trial<'a> {
    guest: &'a Guest,
    config: DeviceConfig,
    queue: DeviceQueue<&'a Guest, &'a Guest>,
    offers: Offers,
    /// What the device side may write of the ring.
    ring: Vec<Segment>,
    /// What the device has in its hands.
    chains: Vec<Taken>,
    /// What is not given back, in the order in which it was taken.
    order: VecDeque<Entry>,
    /// Chains that the device has dropped.
    lost: usize,
    broken: Option<Broken>,
    serial: u64,
    /// A split ring's used index, with what is not published and without.
    used_index: u16,
    published: u16,
}

struct Taken {
    chain: Chain,
    serial: u64,
}

struct Entry {
    serial: u64,
    id: u16,
    done: bool,
}

impl<'a> Trial<'a> {
    fn new(guest: &'a Guest, input: &mut Input) -> Option<Self> {
        let config = config(input);
        let queue = match DeviceQueue::with_log(&config, guest, guest) {
            Ok(queue) => queue,
            Err(error) => {
                assert_eq!(error, NewError::BadAddress);
                assert!(is_impossible(&config), "a ring can lie there");
                return None;
            }
        };
        assert!(!is_impossible(&config), "no ring can lie there");
        let (start, wrap) = match config.state {
            RingState::Split { index } => (index, false),
            RingState::Packed { index, wrap } => (index, wrap),
        };
        Some(Self {
            guest,
            queue,
            offers: Offers::new(config, start, wrap),
            ring: written_parts(&config),
            config,
            chains: Vec::new(),
            order: VecDeque::new(),
            lost: 0,
            broken: None,
            serial: 0,
            used_index: start,
            published: start,
        })
    }

    fn step(&mut self, input: &mut Input) {
        match input.byte() % 16 {
            0..=2 => self.offers.chain(self.guest, input),
            3 => self.offers.table(self.guest, input),
            4 => self.guest.write(address(input), &input.bytes()),
            5 => self.offers.jump(self.guest, input),
            6 => self.guest.protect(usize::from(input.byte()), input.byte()),
            7 => {
                let (countdown, addr) = (input.byte() % 32, address(input));
                self.guest.lie_in_ambush(countdown, addr, input.bytes());
            }
            8 | 9 => self.pop(),
            10 => self.pull(input),
            11 => self.push(input),
            12 => self.complete(input),
            13 => self.publish(),
            14 => self.notify(),
            _ => match input.byte() % 8 {
                0..=2 => self.enable_notifications(),
                3 | 4 => self.disable_notifications(),
                5 => self.walk_pieces(input),
                6 => self.lose(input),
                _ => self.resume(),
            },
        }
    }

    fn pop(&mut self) {
        self.guest.watch(&[]);
        let result = self.queue.pop();
        // A descriptor is two words, and a word takes three translations at most.
        let steps = usize::from(self.config.size) + usize::from(self.config.chain_max);
        self.guest.review(8 * (steps + 2));
        if let Some(broken) = self.broken {
            assert_eq!(
                result.err(),
                Some(PopError::Broken(broken)),
                "a broken queue stays so"
            );
            assert!(self.queue.take_abandoned().is_none(), "it was taken");
            return;
        }
        match result {
            Ok(None) => {}
            Ok(Some(chain)) => self.keep(chain),
            Err(PopError::Busy) => {
                let kept = self.chains.len() + self.lost;
                assert_eq!(
                    kept,
                    usize::from(self.config.in_flight_max),
                    "there is room"
                );
            }
            Err(PopError::Broken(broken)) => {
                self.broken = Some(broken);
                if let Some(chain) = self.queue.take_abandoned() {
                    assert!(chain.readable().is_empty() && chain.writable().is_empty());
                    self.keep(chain);
                }
            }
        }
    }

    /// Checks what can be known of a chain, and enters it into the books.
    fn keep(&mut self, chain: Chain) {
        let (readable, writable) = (chain.readable(), chain.writable());
        assert!(readable.len() + writable.len() <= usize::from(self.config.chain_max));
        for segment in readable.iter().chain(writable) {
            assert!(segment.len > 0, "a segment is empty");
            let end = u128::from(segment.addr.0) + u128::from(segment.len);
            assert!(end <= 1 << 64, "a segment wraps");
        }
        let sum = |part: &[Segment]| part.iter().map(|segment| u64::from(segment.len)).sum();
        assert_eq!(
            (chain.readable_len(), chain.writable_len()),
            (sum(readable), sum(writable))
        );
        assert!(chain.readable_len() + chain.writable_len() <= 1 << 32);
        let (serial, id) = (self.serial, chain.id());
        assert!(
            self.order.iter().all(|entry| entry.id != id),
            "a chain is taken twice"
        );
        self.order.push_back(Entry {
            serial,
            id,
            done: false,
        });
        self.chains.push(Taken { chain, serial });
        self.serial += 1;
    }

    fn pull(&self, input: &mut Input) {
        let Some(chain) = self.pick(input) else {
            return;
        };
        let (offset, len) = (offset(input), usize::from(input.u16() % 512));
        let mut bytes = vec![0; len];
        self.guest.watch(&[]);
        let result = self.queue.pull(chain, offset, &mut bytes);
        self.guest.review(most_pieces(chain, len));
        let expected = held(chain.readable_len(), offset, len);
        match result {
            Ok(done) => {
                assert_eq!(done, expected);
                let there = addresses(chain.readable(), offset, done);
                let there = there.into_iter().map(|addr| self.guest.byte(addr));
                let same = there.eq(bytes.iter().copied().take(done));
                assert!(
                    same || self.guest.has_struck(),
                    "the bytes are not the driver's"
                );
            }
            Err(error) => assert!(error.done < expected),
        }
    }

    fn push(&self, input: &mut Input) {
        let Some(chain) = self.pick(input) else {
            return;
        };
        let (offset, len) = (offset(input), usize::from(input.u16() % 512));
        let byte = input.byte();
        self.guest.watch(chain.writable());
        let result = self.queue.push(chain, offset, &vec![byte; len]);
        let logged = self.guest.review(most_pieces(chain, len));
        let expected = held(chain.writable_len(), offset, len);
        match result {
            Ok(done) => {
                assert_eq!((done, logged), (expected, expected));
                let there = addresses(chain.writable(), offset, done);
                let same = there.into_iter().all(|addr| self.guest.byte(addr) == byte);
                assert!(
                    same || self.guest.has_struck(),
                    "the bytes are not the device's"
                );
            }
            Err(error) => {
                assert!(error.done < expected);
                assert_eq!(error.done, logged);
            }
        }
    }

    fn walk_pieces(&self, input: &mut Input) {
        let Some(chain) = self.pick(input) else {
            return;
        };
        self.guest.watch(chain.writable());
        let len = |piece: virtq::device::Piece| u64::from(piece.len);
        let readable: u64 = self.queue.readable_pieces(chain).flatten().map(len).sum();
        let writable: u64 = self.queue.writable_pieces(chain).flatten().map(len).sum();
        // A segment ends where its region does: behind that, nothing is mapped.
        let pages = usize::try_from(LEN / PAGE).expect("small");
        self.guest
            .review((pages + 2) * usize::from(self.config.chain_max) + 2);
        assert!(readable <= chain.readable_len());
        assert!(writable <= chain.writable_len());
    }

    fn complete(&mut self, input: &mut Input) {
        let (which, written) = (input.byte(), input.u32());
        let Some(which) = usize::from(which).checked_rem(self.chains.len()) else {
            return;
        };
        let Taken { chain, serial } = self.chains.swap_remove(which);
        let (id, room) = (chain.id(), chain.writable_len());
        let before = self.queue.counters().completed;
        self.guest.watch(&self.ring);
        let result = self.queue.complete(chain, written);
        self.guest.review(16 * (usize::from(self.config.size) + 1));
        let counted = self.queue.counters().completed - before;
        let counted = usize::try_from(counted).expect("small");
        let settled = self.settle(serial, counted);
        match result {
            Ok(()) => {
                assert!(settled, "a chain that can go back waits");
                let given_back = u16::try_from(counted).expect("small");
                self.used_index = self.used_index.wrapping_add(given_back);
                if given_back == 1 {
                    self.check_used_entry(id, u64::from(written).min(room));
                }
            }
            Err(CompleteError::Foreign) => panic!("the chain is the queue's"),
            Err(CompleteError::Broken(broken)) => self.broken = Some(broken),
        }
    }

    /// Closes the books on a chain that is done, or on so many that are the next in order. Whether
    /// none is left that could go back.
    fn settle(&mut self, serial: u64, given_back: usize) -> bool {
        let place = self.order.iter().position(|entry| entry.serial == serial);
        let place = place.expect("it was taken");
        if !self.config.features.in_order {
            assert_eq!(given_back, 1, "a chain goes back once");
            self.order.remove(place);
            return true;
        }
        self.order[place].done = true;
        let mut first = self.order.drain(..given_back);
        assert!(
            first.all(|entry| entry.done),
            "a chain goes back before it is done"
        );
        drop(first);
        self.order.front().is_none_or(|entry| !entry.done)
    }

    /// Looks at the last entry of a split ring's used ring.
    fn check_used_entry(&self, id: u16, written: u64) {
        if self.is_legible() {
            let slot = self.used_index.wrapping_sub(1) % self.config.size;
            let entry = self.config.addresses.device.0 + 4 + 8 * u64::from(slot);
            assert_eq!(u32::from_le_bytes(self.guest.read(entry)), u32::from(id));
            assert_eq!(
                u64::from(u32::from_le_bytes(self.guest.read(entry + 4))),
                written
            );
        }
    }

    fn publish(&mut self) {
        self.guest.watch(&self.ring);
        let result = self.queue.publish();
        self.guest.review(8);
        match result {
            Ok(()) => self.check_used_index(),
            Err(broken) => self.broken = Some(broken),
        }
    }

    fn notify(&mut self) {
        self.guest.watch(&self.ring);
        let notify = self.queue.notify();
        self.guest.review(16);
        if self.queue.broken() == self.broken {
            self.check_used_index();
        } else {
            self.broken = self.queue.broken();
            assert!(
                notify,
                "a driver that waits must see that the queue is broken"
            );
        }
    }

    fn check_used_index(&mut self) {
        if self.published != self.used_index && self.is_legible() {
            let at = self.config.addresses.device.0 + 2;
            let published = u16::from_le_bytes(self.guest.read(at));
            assert_eq!(
                published, self.used_index,
                "a completion is lost or doubled"
            );
        }
        self.published = self.used_index;
    }

    /// Whether what the device side has written into a split ring is still there.
    fn is_legible(&self) -> bool {
        let tidy = self.config.addresses == TIDY && !self.config.features.packed;
        tidy && self.broken.is_none() && !self.guest.has_struck()
    }

    fn enable_notifications(&mut self) {
        self.guest.watch(&self.ring);
        let result = self.queue.enable_notifications();
        self.guest.review(16);
        match (self.broken, result) {
            (Some(broken), result) => assert_eq!(result.err(), Some(broken)),
            (None, result) => self.broken = result.err(),
        }
    }

    fn disable_notifications(&mut self) {
        self.guest.watch(&self.ring);
        let result = self.queue.disable_notifications();
        self.guest.review(8);
        match (self.broken, result) {
            (Some(broken), result) => assert_eq!(result, Err(broken)),
            (None, result) => self.broken = result.err(),
        }
    }

    /// The device forgets a chain.
    fn lose(&mut self, input: &mut Input) {
        let which = usize::from(input.byte());
        if let Some(which) = which.checked_rem(self.chains.len()) {
            drop(self.chains.swap_remove(which));
            self.lost += 1;
        }
    }

    /// Goes on with another device side, where this one stands.
    fn resume(&mut self) {
        let Some(state) = self.queue.state() else {
            return;
        };
        if let (RingState::Split { index }, None) = (state, self.broken) {
            assert_eq!(
                index, self.used_index,
                "everything that was taken was given back"
            );
        }
        if let RingState::Split { index } = state {
            (self.used_index, self.published) = (index, index);
        }
        let config = DeviceConfig {
            state,
            ..self.config
        };
        let queue = DeviceQueue::with_log(&config, self.guest, self.guest);
        self.queue = queue.expect("a queue can go on where one stood");
        self.order.clear();
        self.broken = None;
    }

    fn pick(&self, input: &mut Input) -> Option<&Chain> {
        let which = usize::from(input.byte()).checked_rem(self.chains.len())?;
        Some(&self.chains[which].chain)
    }

    fn compare(&self) {
        let in_flight = self.chains.len() + self.lost;
        assert_eq!(usize::from(self.queue.in_flight()), in_flight);
        assert_eq!(self.queue.broken(), self.broken);
        assert!(self.queue.state().is_none() || in_flight == 0);
    }
}
