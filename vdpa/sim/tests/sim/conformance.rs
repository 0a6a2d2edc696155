//! What every parent must do, the simulated devices do, in both flavours.

use std::sync::{Arc, Mutex};

use vdpa::MacAddress;
use vdpa::conformance::{Outcome, Service, Subject, run};
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use vdpa::testing::FakePlatform;
use vdpa::{Platform, VdpaOps};
use vdpa_sim::{
    Access, Flavour, Link, RamDisk, SimBlk, SimBlkConfig, SimConfig, SimNet, SimNetConfig, Storage,
};

struct Net {
    platform: Arc<FakePlatform>,
    flavour: Flavour,
    latest: Mutex<Option<SimNet>>,
}

struct Blk {
    platform: Arc<FakePlatform>,
    flavour: Flavour,
}

impl Subject for Net {
    fn name(&self) -> &str {
        "sim-net"
    }

    fn device_type(&self) -> u32 {
        1
    }

    fn abilities(&self) -> Abilities {
        Abilities::all()
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as Arc<dyn Platform>
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        Box::pin(async {
            let config = SimNetConfig {
                queue_pairs: 2,
                sim: sim(self.flavour),
                ..SimNetConfig::default()
            };
            let (handle, ops) = SimNet::new(config, &self.platform()).unwrap();
            *self.latest.lock().unwrap() = Some(handle);
            Ok(ops)
        })
    }

    fn service(&self) -> Service {
        Service::NetLoopback
    }

    fn change_config(&self) -> bool {
        let handle = self.latest.lock().unwrap();
        let handle = handle.as_ref().unwrap();
        handle.set_link(Link::Down);
        handle.set_link(Link::Up);
        handle.set_mac(MacAddress([2, 2, 2, 2, 2, 2])).is_ok()
    }
}

impl Subject for Blk {
    fn name(&self) -> &str {
        "sim-blk"
    }

    fn device_type(&self) -> u32 {
        2
    }

    fn abilities(&self) -> Abilities {
        Abilities::all()
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as Arc<dyn Platform>
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        Box::pin(async {
            let config = SimBlkConfig {
                disk: RamDisk::new(1 << 20, Storage::Sparse).unwrap(),
                block_size: 512,
                queues: 2,
                access: Access::ReadWrite,
                sim: sim(self.flavour),
            };
            Ok(SimBlk::new(&config, &self.platform()).unwrap())
        })
    }

    fn service(&self) -> Service {
        Service::Blk
    }
}

fn sim(flavour: Flavour) -> SimConfig {
    SimConfig {
        flavour,
        ..SimConfig::default()
    }
}

fn passes(platform: &FakePlatform, subject: &dyn Subject) {
    let report = platform.block_on(run(subject));
    assert!(report.is_passed(), "{report}");
    let skipped = report.checks().iter();
    let skipped: Vec<_> = skipped
        .filter(|check| matches!(check.outcome, Outcome::Skipped(_)))
        .map(|check| check.name)
        .collect();
    assert!(
        2 * skipped.len() < report.checks().len(),
        "most checks concern the device: {report}"
    );
    assert!(platform.tasks().is_empty(), "every worker has ended");
    assert_eq!(platform.heap().outstanding(), 0);
}

#[test]
fn the_network_card_conforms() {
    for flavour in [Flavour::Incremental, Flavour::Whole] {
        let platform = FakePlatform::new();
        let net = Net {
            platform: Arc::clone(&platform),
            flavour,
            latest: Mutex::default(),
        };
        passes(&platform, &net);
    }
}

#[test]
fn the_disk_conforms() {
    for flavour in [Flavour::Incremental, Flavour::Whole] {
        let platform = FakePlatform::new();
        let blk = Blk {
            platform: Arc::clone(&platform),
            flavour,
        };
        passes(&platform, &blk);
    }
}
