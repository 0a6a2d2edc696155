//! One queue at work: the chains that the card has taken, and where the queue stands.

use std::collections::VecDeque;

use virtq::device::{Broken, Chain, CompleteError, DeviceConfig, DeviceQueue, NewError, PopError};
use virtq::{Pending, RingFeatures, RingState};

use crate::GuestMemory;
use crate::migration::Stand;
use crate::pages::Pages;
use crate::plan::bits;
use crate::queue_registers::QueueRegisters;
use crate::rings::Rings;
use crate::violations::Violations;

/// Segments of a chain: as many as a block request has, with header and status.
pub(crate) const CHAIN_MAX: u16 = 130;
/// Chains that can be with the card at once.
pub(crate) const HELD_MAX: u16 = 32;

/// How often a ring is looked at that says that it is empty and then that it is not.
const LOOKS: usize = 4;

/// A queue that runs.
pub(crate) struct Engine {
    ring: DeviceQueue<GuestMemory>,
    /// The same rings, looked at for what the driver must not do.
    pub(crate) rings: Rings,
    memory: GuestMemory,
    start: u16,
    /// Taken and not yet given back, in the order in which they were taken.
    pub(crate) held: VecDeque<Chain>,
    /// Something may be there that nobody has looked at.
    awake: bool,
    /// The driver has been asked for notifications.
    armed: bool,
    /// How often it had notified when it was last looked.
    seen: u64,
}

/// Why a queue cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    New(#[from] NewError),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Complete(#[from] CompleteError),
}

impl Engine {
    /// A queue that goes on at `start`, whose driver has notified `seen` times before.
    pub(crate) fn new(
        registers: &QueueRegisters,
        features: u128,
        start: u16,
        seen: u64,
        memory: &GuestMemory,
        violations: &mut Violations,
    ) -> Result<Self, Trouble> {
        let addresses = registers.addresses().ok_or(NewError::BadAddress)?;
        let has = |feature| features & bits(feature) != 0;
        let ring = RingFeatures::NONE
            .with_packed(has(virtio::F::RING_PACKED))
            .with_event_idx(has(virtio::F::EVENT_IDX))
            .with_indirect(has(virtio::F::INDIRECT_DESC))
            .with_in_order(has(virtio::F::IN_ORDER));
        let size = registers.size;
        let rings = Rings::new(memory, size, addresses, features, start, violations);
        let config = DeviceConfig {
            size: registers.size,
            features: ring,
            addresses,
            state: if ring.packed {
                RingState::start(ring)
            } else {
                RingState::Split { index: start }
            },
            chain_max: CHAIN_MAX,
            in_flight_max: HELD_MAX,
        };
        Ok(Self {
            ring: DeviceQueue::new(&config, GuestMemory::clone(memory))?,
            rings,
            memory: GuestMemory::clone(memory),
            start,
            held: VecDeque::new(),
            awake: false,
            armed: false,
            seen,
        })
    }

    /// Where the queue stands.
    pub(crate) fn stand(&self) -> Stand {
        let counters = self.ring.counters();
        let after = |count: u64| {
            let [low, high, ..] = count.to_le_bytes();
            self.start.wrapping_add(u16::from_le_bytes([low, high]))
        };
        Stand {
            avail: after(counters.popped),
            used: after(counters.completed),
        }
    }

    /// Takes the next chain, if the driver has notified of one. It goes behind those that are held.
    pub(crate) fn take(
        &mut self,
        kicks: u64,
        violations: &mut Violations,
    ) -> Result<bool, Trouble> {
        if self.seen != kicks {
            (self.seen, self.awake) = (kicks, true);
        }
        self.rings.look(violations);
        if !self.armed {
            // What is there already must be notified of, as is what comes.
            let _ = self.ring.enable_notifications()?;
            self.armed = true;
        }
        for _ in 0..LOOKS {
            if !self.awake {
                break;
            }
            self.rings.look(violations);
            match self.ring.pop() {
                Ok(Some(chain)) => {
                    self.held.push_back(chain);
                    return Ok(true);
                }
                Ok(None) => self.awake = self.ring.enable_notifications()? == Pending::Yes,
                Err(PopError::Busy) => break,
                Err(PopError::Broken(broken)) => return Err(broken.into()),
            }
        }
        Ok(false)
    }

    /// Reads from the readable part of a chain; less than asked for, if there is no more or it
    /// cannot be reached.
    pub(crate) fn read(&self, chain: &Chain, offset: u64, bytes: &mut [u8]) -> usize {
        let read = self.ring.pull(chain, offset, bytes);
        read.unwrap_or_else(|error| error.done)
    }

    /// Writes payload, as [`read`](Self::read) reads.
    pub(crate) fn write(
        &self,
        chain: &Chain,
        offset: u64,
        bytes: &[u8],
        pages: &mut Pages,
        violations: &mut Violations,
    ) -> usize {
        let written = self.ring.push(chain, offset, bytes);
        let written = written.unwrap_or_else(|error| error.done);
        pages.add(&self.memory, chain.writable(), offset, written, violations);
        written
    }

    /// Gives a chain back.
    pub(crate) fn complete(
        &mut self,
        chain: Chain,
        written: u32,
        violations: &mut Violations,
    ) -> Result<(), Trouble> {
        self.rings.look(violations);
        self.rings.give_back(chain.id(), violations);
        Ok(self.ring.complete(chain, written)?)
    }

    /// Shows the driver what has been given back, and says whether it wants an interrupt.
    pub(crate) fn notify(&mut self) -> bool {
        self.ring.notify()
    }
}
