//! The conformance suite over the parent driver.

use std::sync::Arc;

use vdpa::conformance::{Outcome, Service, Subject, run};
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use vdpa::testing::FakePlatform;
use vdpa::{Platform, VdpaOps};
use virtio_mmio::Parent;

use super::device::{FakeDevice, Plan, description, feature};
use super::loopback;

struct Place {
    platform: Arc<FakePlatform>,
    device: Arc<FakeDevice>,
}

impl Place {
    fn new(features: u128) -> Self {
        let platform = FakePlatform::new();
        let plan = Plan {
            features: features | feature(virtio::F::VERSION_1),
            ..Plan::default()
        };
        let device = FakeDevice::new(&platform, plan);
        loopback::spawn(&platform, &device);
        Self { platform, device }
    }
}

impl Subject for Place {
    fn name(&self) -> &'static str {
        "virtio_mmio"
    }

    fn device_type(&self) -> u32 {
        1
    }

    fn abilities(&self) -> Abilities {
        Abilities::empty()
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as _
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        Box::pin(async {
            let (place, platform) = (description(), self.platform());
            // SAFETY: the device is there.
            let parent = unsafe { Parent::probe(&place, &platform) };
            Ok(Box::new(parent.await.unwrap()) as _)
        })
    }

    fn service(&self) -> Service {
        Service::NetLoopback
    }

    fn change_config(&self) -> bool {
        self.device.change_config(&self.platform);
        true
    }
}

/// What concerns disks, packed rings, and devices that translate, log, or tell the state of their
/// queues.
const NOT_OURS: [&str; 20] = [
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
    "nothing is lost or doubled",
    "the dirty-page log equals",
    "the log was stopped",
    "ends the dirty-page log",
    "a log that ends early",
    "packed",
    "suspended",
    "has not been started",
];

#[test]
fn a_device_conforms_with_and_without_what_it_may_offer() {
    let more = virtio::F::EVENT_IDX | virtio::F::INDIRECT_DESC | virtio::F::RING_RESET;
    for (features, lines) in [(0, usize::MAX), (feature(more), usize::MAX), (0, 0)] {
        let place = Place::new(features);
        place.platform.limit_vectors(lines);
        let report = place.platform.block_on(run(&place));
        assert!(report.is_passed(), "{report}");
        for check in report.checks() {
            if let Outcome::Skipped(_) = check.outcome {
                let known = NOT_OURS.iter().any(|part| check.name.contains(part));
                assert!(known, "{} is skipped\n{report}", check.name);
            }
        }
        assert_eq!(place.device.violations(), Vec::<String>::new());
        assert_eq!(place.platform.vectors_in_use(), 0);
        assert_eq!(place.platform.heap().outstanding(), 0);
    }
}
