//! The conformance suite over the parent driver, on functions of different abilities.

use std::sync::Arc;

use vdpa::conformance::{Outcome, Service, Subject, run};
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use vdpa::testing::FakePlatform;
use vdpa::{Features, Platform, VdpaOps};
use virtio_pci::vp_vdpa;

use crate::fakes::machine::Machine;
use crate::fakes::virtio::{FakeVirtio, Plan, ring_reset, suspend, version_1};
use crate::loopback;

use super::NAME;

struct Function {
    machine: Machine,
    device: Arc<FakeVirtio>,
    abilities: Abilities,
}

impl Function {
    fn new(features: Features, vectors: u16, abilities: Abilities) -> Self {
        let (device, function) = FakeVirtio::new(Plan {
            features: features.bits() | version_1(),
            vectors,
            ..Plan::default()
        });
        let machine = Machine::with_functions(&[&function]);
        machine.enumerate();
        loopback::spawn(&machine.platform, &device);
        Self {
            machine,
            device,
            abilities,
        }
    }
}

impl Subject for Function {
    fn name(&self) -> &'static str {
        "vp_vdpa"
    }

    fn device_type(&self) -> u32 {
        1
    }

    fn abilities(&self) -> Abilities {
        self.abilities
    }

    fn platform(&self) -> Arc<dyn Platform> {
        self.machine.platform()
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        Box::pin(async {
            let function = self.machine.device(NAME);
            let parent = vp_vdpa::probe(&function, &self.platform(), 1).await;
            Ok(Box::new(parent.unwrap()) as _)
        })
    }

    fn service(&self) -> Service {
        Service::NetLoopback
    }

    fn change_config(&self) -> bool {
        self.device.change_config(&self.machine.platform);
        true
    }
}

/// Runs the suite, of which only checks with these words may be skipped.
#[track_caller]
fn assert_passes(function: &Function, may_skip: &[&str]) {
    let platform: &FakePlatform = &function.machine.platform;
    let report = platform.block_on(run(function));
    assert!(report.is_passed(), "{report}");
    for check in report.checks() {
        if let Outcome::Skipped(_) = check.outcome {
            let known = may_skip.iter().any(|part| check.name.contains(part));
            assert!(known, "{} is skipped\n{report}", check.name);
        }
    }
    assert_eq!(function.device.violations(), Vec::<String>::new());
    assert_eq!(platform.vectors_in_use(), 0);
    assert_eq!(platform.heap().outstanding(), 0);
}

/// What concerns disks, and devices that translate, log, or tell the state of their queues.
const NOT_OURS: [&str; 18] = [
    "read back",
    "has a name",
    "beyond its end",
    "does not exist is refused",
    "requests are answered",
    "whole and in parts, in every",
    "outside its addresses",
    "over a reset",
    "platform's addresses",
    "taken away is not touched",
    "address space of its group",
    "goes on where it stood",
    "is where its queue stands",
    "nothing is lost or doubled",
    "the dirty-page log equals",
    "the log was stopped",
    "ends the dirty-page log",
    "a log that ends early",
];

#[test]
fn a_function_that_can_be_suspended_conforms() {
    let features = virtio::F::RING_PACKED | virtio::F::EVENT_IDX;
    let features = Features::from(features) | Features::from_bits(ring_reset() | suspend());
    let abilities = Abilities::SUSPEND | Abilities::RESUME;
    assert_passes(&Function::new(features, 4, abilities), &NOT_OURS);
}

#[test]
fn a_plain_function_conforms_with_any_number_of_vectors() {
    for vectors in [4, 2, 1, 0] {
        let mut may_skip = Vec::from(NOT_OURS);
        may_skip.extend(["packed", "suspended", "has not been started"]);
        let function = Function::new(Features::EMPTY, vectors, Abilities::empty());
        assert_passes(&function, &may_skip);
    }
}
