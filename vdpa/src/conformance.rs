//! A suite of checks that every parent driver passes: the contract of [`VdpaOps`], seen from above
//! the bus.
//!
//! The author of a parent implements [`Subject`] and calls [`run`]; it needs no more than a
//! platform, so it runs on a host with a simulated device and on hardware alike. Each check has a
//! device of its own, on a bus of its own, and drives its queues by itself, without any driver of
//! this project.
//!
//! A check that the device cannot be put to is skipped with the reason; the abilities that the
//! subject claims are not skipped. What the bus checks before a parent is asked
//! ([`VdpaDevice`](crate::device::VdpaDevice)) is checked here only as far as the parent decides
//! about it.

mod bench;
mod blk;
mod config;
mod dirty;
mod identity;
mod interrupts;
mod maps;
mod motion;
mod negotiation;
mod net;
mod queues;
mod removal;
mod report;
mod requests;
mod rig;
mod spaces;
mod state;
mod statistics;
mod status;
mod traffic;
mod verdict;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::Platform;
use crate::VdpaOps;
use crate::dma::IsolationUnit;
use crate::ops::{Abilities, OpError};
use crate::platform::BoxFuture;
use crate::tree::Node;

pub use self::report::{Check, Outcome, Report};

use self::bench::Bench;
use self::verdict::{Stop, Verdict};

/// A parent under test.
pub trait Subject: Sync {
    /// What the report calls it.
    fn name(&self) -> &str;

    /// The virtio device type that its devices must have.
    fn device_type(&self) -> u32;

    /// The abilities that they must have, and no others.
    fn abilities(&self) -> Abilities;

    /// The kernel's services.
    fn platform(&self) -> Arc<dyn Platform>;

    /// Makes a device that nobody has used. Called once for each check, after the previous device
    /// has been freed.
    ///
    /// # Errors
    /// Whatever went wrong; the check fails.
    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>>;

    /// What becomes of the data that is sent to the device.
    fn service(&self) -> Service {
        Service::None
    }

    /// With [`Service::Requests`]: the request of this number.
    fn request(&self, _number: u8) -> Request {
        Request::default()
    }

    /// With [`Service::Requests`]: whether this is the answer to the request of this number, as far
    /// as the device says that it has written it.
    ///
    /// # Errors
    /// What is wrong with it.
    fn judge(&self, _number: u8, _answer: &[u8]) -> Result<(), String> {
        Ok(())
    }

    /// Who issues the DMA requests of its devices; `root` is where they hang in the device tree.
    fn unit(&self, root: &Arc<Node>) -> Arc<IsolationUnit> {
        IsolationUnit::new(root, None, None)
    }

    /// Whether a network device says that a frame lies in one buffer even where buffers are never
    /// merged (VIRTIO 1.2, 5.1.6.4.1). A driver does not rely on it.
    fn sets_num_buffers(&self) -> bool {
        true
    }

    /// Makes the latest device change its configuration space and say so. False if there is no way
    /// to.
    fn change_config(&self) -> bool {
        false
    }
}

/// What a device does with data, as far as the suite can use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Nothing that can be counted on.
    None,
    /// A network device that gives back every frame: queue 0 receives what queue 1 sends.
    NetLoopback,
    /// A disk of at least 8 sectors, whose first 8 sectors may be overwritten: they are put back.
    Blk,
    /// It answers the [requests](Subject::request) that the subject makes, whatever its type.
    Requests,
}

/// A request to a device of any type, in one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The queue that takes it: 0 or 1.
    pub queue: u16,
    /// The bytes that the device reads.
    pub bytes: Vec<u8>,
    /// How many bytes it may write.
    pub room: usize,
    /// How many of them it must say that it has written (VIRTIO 1.2, 2.7.8.2): at most `room`.
    pub used: RangeInclusive<usize>,
}

impl Default for Request {
    /// Nothing to read and nothing to write, on the first queue. No ring takes it.
    fn default() -> Self {
        Self {
            queue: 0,
            bytes: Vec::new(),
            room: 0,
            used: 0..=0,
        }
    }
}

/// Puts the parent through all checks, one after the other.
pub async fn run(subject: &dyn Subject) -> Report {
    let mut report = Report::new(subject.name());
    let own = match subject.service() {
        Service::Requests => requests::CHECKS,
        _ => &[],
    };
    for (name, check) in CHECKS.iter().copied().flatten().chain(own) {
        let outcome = outcome(subject, *check).await;
        report.add(name, outcome);
    }
    report
}

/// A check: it may do with the device what it likes.
type CheckFn = for<'a> fn(&'a Bench<'_>) -> BoxFuture<'a, Verdict>;

/// Checks and what they are called: what holds if they pass.
type Checks = &'static [(&'static str, CheckFn)];

const CHECKS: &[Checks] = &[
    identity::CHECKS,
    negotiation::CHECKS,
    status::CHECKS,
    config::CHECKS,
    queues::CHECKS,
    state::CHECKS,
    motion::CHECKS,
    spaces::CHECKS,
    maps::CHECKS,
    dirty::CHECKS,
    statistics::CHECKS,
    interrupts::CHECKS,
    net::CHECKS,
    blk::CHECKS,
    removal::CHECKS,
];

async fn outcome(subject: &dyn Subject, check: CheckFn) -> Outcome {
    let bench = match Bench::new(subject).await {
        Ok(bench) => bench,
        Err(stop) => return stop.into(),
    };
    let verdict = check(&bench).await;
    let cleaned = bench.finish().await;
    match verdict.and(cleaned) {
        Ok(()) => Outcome::Passed,
        Err(stop) => stop.into(),
    }
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Failed(reason) => Self::Failed(reason),
            Stop::Skipped(reason) => Self::Skipped(reason),
        }
    }
}
