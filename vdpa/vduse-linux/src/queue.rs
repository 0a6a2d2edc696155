//! A queue that is served: chains are given back in the order in which they were taken, so that its
//! place in the ring says which are still to do.

use std::sync::Arc;

use vdpa::Features;
use vdpa::features::ring_features;
use vduse_protocol::{PackedState, QueueInfo, RawState};
use virtq::device::{Access, Chain, DeviceConfig, DeviceQueue, Fault, Memory, PopError};
use virtq::{DmaAddr, Pending, RingAddresses, RingFeatures, RingState};

use crate::device_file::DeviceFile;
use crate::error::QueueError;
use crate::journal::{BATCH, Done, Place, QueueJournal};
use crate::memory::{QueueMemory, Space};
use crate::redo::redo;
use crate::service::Service;

/// Where the index of the used ring lies (VIRTIO 1.2, 2.7.8).
const USED_INDEX: u64 = 2;

/// Who knows where a queue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The driver, which has just set it up.
    Driver,
    /// Its ring, and the program that served it before.
    Ring,
}

/// What a turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There may be more to do.
    More,
    /// The driver is to be interrupted, and the kernel does not know yet that it has started.
    Later,
    /// The driver will kick.
    Idle,
}

/// What makes a queue.
#[derive(Debug)]
pub(crate) struct Recipe<'a> {
    pub(crate) info: &'a QueueInfo,
    pub(crate) features: u64,
    pub(crate) chain_max: u16,
    pub(crate) space: &'a Arc<Space>,
    pub(crate) journal: Option<QueueJournal>,
    pub(crate) origin: Origin,
}

/// A queue that runs.
#[derive(Debug)]
pub(crate) struct Queue {
    ring: DeviceQueue<QueueMemory>,
    features: RingFeatures,
    size: u16,
    /// Of a packed ring, where the next used descriptor goes.
    place: Place,
    journal: Option<QueueJournal>,
    /// Whether an interrupt is owed.
    owes: bool,
    served: Vec<(Chain, u32)>,
    batch: Vec<Done>,
}

impl Queue {
    /// Makes what the driver has set up; no chain is taken yet.
    pub(crate) fn new(recipe: Recipe<'_>) -> Result<Self, QueueError> {
        let Recipe {
            info,
            chain_max,
            space,
            journal,
            origin,
            ..
        } = recipe;
        // Each chain is given back by itself, as the journal has it.
        let features = Features::from_bits(recipe.features.into());
        let features = ring_features(features).with_in_order(false);
        let size = u16::try_from(info.size).map_err(|_| QueueError::Size(info.size))?;
        let memory = QueueMemory::new(space);
        // What cannot be reached is told at once.
        for (address, access) in [
            (info.descriptor, Access::Read),
            (info.driver, Access::Read),
            (info.device, Access::Write),
        ] {
            memory.translate(DmaAddr(address), 1, access)?;
        }
        let state = match origin {
            Origin::Driver => told(info, features)?,
            Origin::Ring => found(&memory, info, size, features, journal.as_ref())?,
        };
        let config = DeviceConfig {
            size,
            features,
            addresses: RingAddresses {
                descriptor: DmaAddr(info.descriptor),
                driver: DmaAddr(info.driver),
                device: DmaAddr(info.device),
            },
            state,
            chain_max,
            in_flight_max: BATCH as u16,
        };
        let queue = Self {
            ring: DeviceQueue::new(&config, memory)?,
            features,
            size,
            place: place(state),
            journal,
            // The program before may have died between giving back and telling.
            owes: origin == Origin::Ring,
            served: Vec::with_capacity(BATCH),
            batch: Vec::with_capacity(BATCH),
        };
        if let Some(journal) = &queue.journal {
            journal.stand(queue.place);
        }
        Ok(queue)
    }

    /// Serves what is there, up to a batch.
    pub(crate) fn turn(
        &mut self,
        index: u16,
        device: &DeviceFile,
        service: &dyn Service,
    ) -> Result<Turn, QueueError> {
        self.take(index, service)?;
        if !self.served.is_empty() {
            self.give_back()?;
            if self.ring.notify() {
                self.owes = true;
            }
        }
        if self.owes {
            self.owes = !device.interrupt(index)?;
        }
        match self.ring.enable_notifications()? {
            Pending::Yes => Ok(Turn::More),
            Pending::No if self.owes => Ok(Turn::Later),
            Pending::No => Ok(Turn::Idle),
        }
    }

    /// Lets the service answer what is there.
    fn take(&mut self, index: u16, service: &dyn Service) -> Result<(), QueueError> {
        while self.served.len() < BATCH {
            let chain = match self.ring.pop() {
                Ok(Some(chain)) => chain,
                Ok(None) | Err(PopError::Busy) => break,
                Err(PopError::Broken(broken)) => return Err(broken.into()),
            };
            // With EVENT_IDX the driver kicks once and not again before it is asked to.
            if self.served.is_empty() && !self.features.event_idx {
                self.ring.disable_notifications()?;
            }
            let written = service.serve(index, &self.ring, &chain);
            self.served.push((chain, written));
        }
        Ok(())
    }

    /// Gives back what was served.
    fn give_back(&mut self) -> Result<(), QueueError> {
        let next = self.note();
        self.publish()?;
        self.settle(next);
        Ok(())
    }

    /// Notes what is about to be given back in a packed ring, and says where that ends.
    fn note(&mut self) -> Place {
        let mut next = self.place;
        let packed = self.features.packed;
        let Some(journal) = self.journal.as_ref().filter(|_| packed) else {
            return next;
        };
        self.batch.clear();
        for (chain, written) in &self.served {
            let most = u32::try_from(chain.writable_len()).unwrap_or(u32::MAX);
            let done = Done {
                id: chain.id(),
                descriptors: chain.descriptors(),
                written: (*written).min(most),
            };
            next = next.after(done.descriptors, self.size);
            self.batch.push(done);
        }
        journal.begin(self.place, &self.batch);
        next
    }

    /// Shows the driver all of it.
    fn publish(&mut self) -> Result<(), QueueError> {
        for (chain, written) in self.served.drain(..) {
            self.ring.complete(chain, written)?;
        }
        Ok(self.ring.publish()?)
    }

    /// Notes that the driver has seen it.
    fn settle(&mut self, next: Place) {
        self.place = next;
        if let Some(journal) = self.journal.as_ref().filter(|_| self.features.packed) {
            journal.stand(next);
        }
    }

    /// Where it stands, between turns.
    pub(crate) fn state(&self) -> Option<RawState> {
        self.ring.state().map(encode)
    }

    /// Lets go of memory that was withdrawn.
    pub(crate) fn refresh(&mut self) {
        self.ring.refresh();
    }

    /// Forgets it: the driver has taken it back.
    pub(crate) fn end(self) {
        if let Some(journal) = &self.journal {
            journal.forget();
        }
    }
}

/// Where the driver says that a queue starts.
fn told(info: &QueueInfo, features: RingFeatures) -> Result<RingState, QueueError> {
    if !features.packed {
        let index = info.state.split();
        return Ok(RingState::Split { index });
    }
    let PackedState {
        avail_index,
        avail_wrap,
        used_index,
        used_wrap,
    } = info.state.packed();
    if (avail_index, avail_wrap) != (used_index, used_wrap) {
        return Err(QueueError::InFlight);
    }
    Ok(RingState::Packed {
        index: avail_index,
        wrap: avail_wrap,
    })
}

/// Where the program before has come to: behind the last chain that it gave back.
fn found(
    memory: &QueueMemory,
    info: &QueueInfo,
    size: u16,
    features: RingFeatures,
    journal: Option<&QueueJournal>,
) -> Result<RingState, QueueError> {
    if !features.packed {
        let used = info.device.checked_add(USED_INDEX);
        let index = memory.load16(used.ok_or(Fault::NoMapping)?)?;
        return Ok(RingState::Split { index });
    }
    let noted = journal.and_then(QueueJournal::read);
    let (place, batch) = noted.ok_or(QueueError::NoJournal)?;
    let Place { index, wrap } = redo(memory, info.descriptor, size, place, &batch)?;
    Ok(RingState::Packed { index, wrap })
}

fn place(state: RingState) -> Place {
    match state {
        RingState::Packed { index, wrap } => Place { index, wrap },
        RingState::Split { .. } => Place {
            index: 0,
            wrap: false,
        },
    }
}

fn encode(state: RingState) -> RawState {
    match state {
        RingState::Split { index } => RawState::of_split(index),
        RingState::Packed { index, wrap } => RawState::of_packed(PackedState {
            avail_index: index,
            avail_wrap: wrap,
            used_index: index,
            used_wrap: wrap,
        }),
    }
}

#[cfg(test)]
mod tests;
