//! Fake devices as subjects.

use std::sync::{Arc, Mutex};

use vdpa::conformance::{Outcome, Report, Service, Subject, run};
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use vdpa::testing::{FakeParent, FakePlatform, Traits};
use vdpa::{Features, Platform, VdpaOps};

use crate::pages::DoorbellPages;
use crate::server::{SECTORS, spawn_disk, spawn_loopback};

/// Makes fake devices.
pub struct Fake {
    pub platform: Arc<FakePlatform>,
    pub traits: Traits,
    pub service: Service,
    pub features: Features,
    latest: Arc<Mutex<Option<Arc<FakeParent>>>>,
}

impl Fake {
    /// Devices with rings of both formats.
    pub fn new(service: Service, traits: Traits) -> Self {
        let mut features = Features::from(virtio::F::RING_PACKED | virtio::F::EVENT_IDX);
        if service == Service::Blk {
            features = features | virtio::blk::F::FLUSH.into();
        }
        let (platform, latest) = (FakePlatform::new(), Arc::default());
        if let Some(area) = traits.doorbells {
            let pages = DoorbellPages {
                queues: 3,
                latest: Arc::clone(&latest),
            };
            platform.add_mmio(area.base, Arc::new(pages));
        }
        Self {
            platform,
            traits,
            service,
            features,
            latest,
        }
    }

    pub fn create(&self) -> Box<dyn VdpaOps> {
        let sectors = u64::try_from(SECTORS).unwrap().to_le_bytes();
        let (sizes, config): (&[u16], &[u8]) = match self.service {
            Service::Blk => (&[64], &sectors),
            Service::NetLoopback | Service::None | Service::Requests => (&[64, 64, 16], &[7; 12]),
        };
        let (kind, traits) = (self.device_type(), self.traits.clone());
        let parent =
            FakeParent::with_traits(&self.platform, kind, self.features, sizes, config, traits);
        match self.service {
            Service::NetLoopback => spawn_loopback(&self.platform, &parent),
            Service::Blk => spawn_disk(&self.platform, &parent),
            Service::None | Service::Requests => {}
        }
        let ops = parent.ops();
        *self.latest.lock().unwrap() = Some(parent);
        ops
    }

    /// The device that was made last.
    pub fn latest(&self) -> Arc<FakeParent> {
        Arc::clone(self.latest.lock().unwrap().as_ref().unwrap())
    }
}

impl Subject for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn device_type(&self) -> u32 {
        if self.service == Service::Blk { 2 } else { 1 }
    }

    fn abilities(&self) -> Abilities {
        self.traits.abilities
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as Arc<dyn Platform>
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        Box::pin(async { Ok(self.create()) })
    }

    fn service(&self) -> Service {
        self.service
    }

    fn change_config(&self) -> bool {
        let changes = self.service != Service::Blk;
        if changes {
            self.latest().change_config(6, &[1, 0]);
        }
        changes
    }
}

/// Puts a subject through the suite.
pub fn report(platform: &FakePlatform, subject: &dyn Subject) -> Report {
    platform.block_on(run(subject))
}

/// The names of the checks that were skipped.
pub fn skipped(report: &Report) -> Vec<&'static str> {
    let checks = report.checks().iter();
    let skipped = checks.filter(|check| matches!(check.outcome, Outcome::Skipped(_)));
    skipped.map(|check| check.name).collect()
}
