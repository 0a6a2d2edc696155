//! One queue at work: the chains that the card has taken, and where the queue stands.

use std::collections::VecDeque;

use virtq::device::{Broken, Chain, CompleteError, DeviceConfig, DeviceQueue, NewError, PopError};
use virtq::{Pending, RingFeatures, RingState};

use crate::GuestMemory;
use crate::migration::Stand;
use crate::pages::Pages;
use crate::plan::bits;
use crate::queue_registers::QueueRegisters;
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
        features: u64,
        start: u16,
        seen: u64,
        memory: &GuestMemory,
    ) -> Result<Self, Trouble> {
        let addresses = registers.addresses().ok_or(NewError::BadAddress)?;
        let config = DeviceConfig {
            size: registers.size,
            features: RingFeatures {
                packed: false,
                event_idx: features & bits(virtio::F::EVENT_IDX) != 0,
                indirect: features & bits(virtio::F::INDIRECT_DESC) != 0,
                in_order: false,
            },
            addresses,
            state: RingState::Split { index: start },
            chain_max: CHAIN_MAX,
            in_flight_max: HELD_MAX,
        };
        Ok(Self {
            ring: DeviceQueue::new(&config, GuestMemory::clone(memory))?,
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
    pub(crate) fn take(&mut self, kicks: u64) -> Result<bool, Trouble> {
        if self.seen != kicks {
            (self.seen, self.awake) = (kicks, true);
        }
        if !self.armed {
            // What is there already must be notified of, as is what comes.
            let _ = self.ring.enable_notifications()?;
            self.armed = true;
        }
        for _ in 0..LOOKS {
            if !self.awake {
                break;
            }
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

    /// Reads from the readable part of a chain; less than asked for, if there is no more or it cannot be reached.
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
    pub(crate) fn complete(&mut self, chain: Chain, written: u32) -> Result<(), Trouble> {
        Ok(self.ring.complete(chain, written)?)
    }

    /// Shows the driver what has been given back, and says whether it wants an interrupt.
    pub(crate) fn notify(&mut self) -> bool {
        self.ring.notify()
    }
}
