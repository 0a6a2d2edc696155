//! One ring: what the front-end has set for it, and whether it runs.
//!
//! A ring runs while it has a size, addresses and a kick and is enabled. Whatever is set anew while
//! it runs stops it first and lets it go on from where it stood.

use std::fs::File;
use std::io;
use std::sync::Arc;

use thiserror::Error;
use virtq::device::{Counters, DeviceConfig};
use virtq::{RingAddresses, RingFeatures, RingState};

use super::blk::{CHAIN_MAX, Disk};
use super::memory::GuestMemory;
use super::wake::Line;
use super::worker::{BATCH, Job, Worker};

/// What all rings of a device have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<Disk>,
    pub(super) memory: Option<Arc<GuestMemory>>,
    pub(super) features: RingFeatures,
}

/// Addresses of a ring's parts in the front-end's own address space.
#[derive(Clone, Copy, Debug)]
pub(super) struct UserAddresses {
    pub(super) descriptor: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// Whether the driver has made the ring ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Readiness {
    #[default]
    Disabled,
    Enabled,
}

/// Why a ring does not do what the front-end asks for.
#[derive(Debug, Error)]
pub(super) enum VringError {
    /// The base names chains that another back-end has not completed.
    #[error("the ring's base {0:#x} has chains in flight")]
    InFlight(u32),
    /// An address that no region of the memory table covers.
    #[error("a part of the ring lies outside the guest's memory")]
    Outside,
    /// It has stopped for a reason of its own, and there is no place to go on from.
    #[error("the ring is broken")]
    Broken,
    /// A thread or an event counter failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A ring.
#[derive(Debug, Default)]
pub(super) struct Vring {
    size: u16,
    addresses: Option<UserAddresses>,
    /// Where it goes on, as the protocol encodes it; `None` after it broke.
    base: Option<u32>,
    kick: Option<File>,
    readiness: Readiness,
    call: Line,
    error: Line,
    worker: Option<Worker>,
    /// Sums over all runs.
    counters: Counters,
    /// Runs that began where another had ended.
    resumed: u64,
    failures: Vec<String>,
}

impl Vring {
    pub(super) fn set_size(&mut self, size: u16) {
        self.size = size;
    }

    pub(super) fn set_addresses(&mut self, addresses: UserAddresses) {
        self.addresses = Some(addresses);
    }

    pub(super) fn set_base(&mut self, base: u32) {
        self.base = Some(base);
    }

    pub(super) fn set_kick(&mut self, kick: File) {
        self.kick = Some(kick);
    }

    pub(super) fn set_readiness(&mut self, readiness: Readiness) {
        self.readiness = readiness;
    }

    /// Who is told of completed chains; a ring that runs need not stop for it.
    pub(super) fn call(&self) -> &Line {
        &self.call
    }

    /// Who is told that the ring broke.
    pub(super) fn error(&self) -> &Line {
        &self.error
    }

    /// What its queues did in all runs.
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// How many runs began where another had ended, and not at the beginning.
    pub(super) fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Why runs ended that should not have.
    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Starts the ring if it has all that it needs.
    pub(super) fn start(&mut self, shared: &Shared) -> Result<(), VringError> {
        let (Some(memory), Some(user), Some(kick)) = (&shared.memory, self.addresses, &self.kick)
        else {
            return Ok(());
        };
        if self.size == 0 || self.readiness == Readiness::Disabled || self.worker.is_some() {
            return Ok(());
        }
        let guest = |user| memory.guest_address(user).ok_or(VringError::Outside);
        let addresses = RingAddresses {
            descriptor: guest(user.descriptor)?,
            driver: guest(user.available)?,
            device: guest(user.used)?,
        };
        let base = self.base.ok_or(VringError::Broken)?;
        let state = decode(base, shared.features)?;
        let config = DeviceConfig {
            size: self.size,
            features: shared.features,
            addresses,
            state,
            chain_max: CHAIN_MAX,
            in_flight_max: BATCH,
        };
        self.worker = Some(Worker::start(Job {
            config,
            memory: Arc::clone(memory),
            disk: Arc::clone(&shared.disk),
            kick: kick.try_clone()?,
            call: self.call.clone(),
            error: self.error.clone(),
        })?);
        self.resumed += u64::from(state != RingState::start(shared.features));
        Ok(())
    }

    /// Stops the ring if it runs, and keeps where it stood.
    pub(super) fn pause(&mut self) -> Result<(), VringError> {
        let Some(worker) = self.worker.take() else {
            return Ok(());
        };
        let outcome = worker.stop()?;
        self.base = outcome.state.map(encode);
        self.failures
            .extend(outcome.failure.map(|failure| failure.to_string()));
        let Counters {
            popped,
            completed,
            notified,
            suppressed,
        } = outcome.counters;
        self.counters.popped += popped;
        self.counters.completed += completed;
        self.counters.notified += notified;
        self.counters.suppressed += suppressed;
        Ok(())
    }

    /// Stops the ring until it gets another kick, and says where it stands.
    pub(super) fn stop(&mut self) -> Result<u32, VringError> {
        self.pause()?;
        self.kick = None;
        self.base.ok_or(VringError::Broken)
    }
}

/// The wrap counter in half a packed ring's base.
const WRAP: u16 = 1 << 15;

/// Reads the base of a ring: the next available index; of a packed ring the next available and the
/// next used descriptor, each with its wrap counter.
fn decode(base: u32, features: RingFeatures) -> Result<RingState, VringError> {
    let [a, b, c, d] = base.to_le_bytes();
    let [available, used] = [[a, b], [c, d]].map(u16::from_le_bytes);
    if !features.packed {
        return Ok(RingState::Split { index: available });
    }
    if available != used {
        return Err(VringError::InFlight(base));
    }
    Ok(RingState::Packed {
        index: available & !WRAP,
        wrap: available & WRAP != 0,
    })
}

/// The base of a ring with nothing in flight.
fn encode(state: RingState) -> u32 {
    match state {
        RingState::Split { index } => index.into(),
        RingState::Packed { index, wrap } => {
            let half = u32::from(index) | if wrap { WRAP.into() } else { 0 };
            half | half << 16
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKED: RingFeatures = RingFeatures::NONE.with_packed(true);

    #[test]
    fn base_of_a_ring_comes_back_as_it_was() {
        let split = PACKED.with_packed(false);
        for index in [0, 1, 127, 0x8000, u16::MAX] {
            let state = RingState::Split { index };
            assert_eq!(encode(state), u32::from(index));
            assert_eq!(decode(encode(state), split).unwrap(), state);
        }
        for (index, wrap, base) in [
            (0, true, 0x8000_8000),
            (0, false, 0),
            (0x7fff, true, 0xffff_ffff),
            (3, false, 0x0003_0003),
        ] {
            let state = RingState::Packed { index, wrap };
            assert_eq!(encode(state), base);
            assert_eq!(decode(base, PACKED).unwrap(), state);
        }
    }

    #[test]
    fn base_with_chains_in_flight_is_refused() {
        for base in [0x8000_8001, 0x0000_8000] {
            let refused = decode(base, PACKED);
            assert!(matches!(refused, Err(VringError::InFlight(found)) if found == base));
        }
    }
}
