//! The suite for parent drivers, on the simulators and on QEMU's devices.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::future::ready;

use guest_tests::disk::WRITABLE;
use pci::PciDevice;
use spin::Mutex;
use vdpa::bus::{Driver, ProbeError};
use vdpa::conformance::{self, Check, Service, Subject, run};
use vdpa::device::VdpaBus;
use vdpa::dma::IsolationUnit;
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use vdpa::{Node, Platform, VdpaOps};
use vdpa_sim::{Flavour, Link, SimNet};
use virtio_pci::ifcvf::{self, Ifcvf, QEMU_IDS};
use virtio_pci::vp_vdpa;
use virtio_pci::{Parent, Unsuitable};

use crate::bench::Bench;
use crate::outcome::Outcome;
use crate::parents::{NOBODY, flavour, ram_disk, sim_blk, sim_net};
use crate::{ensure, guest_tests};

guest_tests![
    qemu_disk_conforms,
    qemu_network_card_conforms,
    simulated_disk_conforms,
    simulated_network_card_conforms,
];

const NET: u32 = 1;
const BLK: u32 = 2;

async fn simulated_disk_conforms(bench: &Bench) -> Outcome {
    for how in [Flavour::Incremental, Flavour::Whole] {
        let platform = Arc::clone(bench.system.platform());
        passes(&SimulatedDisk { platform, how }).await?;
    }
    Ok(())
}

async fn simulated_network_card_conforms(bench: &Bench) -> Outcome {
    for how in [Flavour::Incremental, Flavour::Whole] {
        let card = SimulatedCard {
            platform: Arc::clone(bench.system.platform()),
            how,
            latest: Mutex::new(None),
        };
        passes(&card).await?;
    }
    Ok(())
}

async fn qemu_disk_conforms(bench: &Bench) -> Outcome {
    bench.require_pci()?;
    let name = String::from(bench.disk(WRITABLE).await?.name());
    conforms(bench, &name, BLK).await
}

async fn qemu_network_card_conforms(bench: &Bench) -> Outcome {
    bench.require_pci()?;
    let name = bench.net_name().await?;
    bench.drop_net();
    conforms(bench, &name, NET).await
}

/// Whether the card gets back every frame it sends.
fn has_loopback(bench: &Bench) -> bool {
    bench.system.command_line().get("network") == Some("loopback")
}

/// Takes the PCI function of an interface or a disk from its driver for the time of the checks.
async fn conforms(bench: &Bench, name: &str, device_type: u32) -> Outcome {
    let function = bench.function(&*bench.vdpa_device(name)?)?;
    let has_block = bench.system.command_line().get("migration") == Some("on");
    let of_block =
        Abilities::SUSPEND | Abilities::RESUME | Abilities::QUEUE_STATE | Abilities::DIRTY_LOG;
    let subject = Function {
        abilities: if has_block {
            of_block
        } else {
            Abilities::empty()
        },
        platform: Arc::clone(bench.system.platform()),
        parent: bench.parent_of(&function),
        function: Arc::clone(&function),
        device_type,
        service: match device_type {
            BLK => Service::Blk,
            _ if has_loopback(bench) => Service::NetLoopback,
            _ => Service::None,
        },
    };
    let bus = bench.system.pci();
    bus.set_override(&function, Some(NOBODY)).await;
    let outcome = passes(&subject).await;
    bus.set_override(&function, None).await;
    outcome
}

pub async fn passes(subject: &dyn Subject) -> Outcome {
    let report = run(subject).await;
    ensure!(report.is_passed(), "{report}");
    let passed = |check: &&Check| check.outcome == conformance::Outcome::Passed;
    let passed = report.checks().iter().filter(passed).count();
    ensure!(
        2 * passed > report.checks().len(),
        "most checks concern the device: {report}"
    );
    let skipped = |check: &Check| matches!(check.outcome, conformance::Outcome::Skipped(_));
    let frames = report
        .checks()
        .iter()
        .filter(|check| check.name.contains("frames"));
    ensure!(
        subject.service() != Service::NetLoopback || !frames.clone().any(skipped),
        "every frame comes back, and no check looked: {report}"
    );
    Ok(())
}

struct SimulatedDisk {
    platform: Arc<dyn Platform>,
    how: Flavour,
}

struct SimulatedCard {
    platform: Arc<dyn Platform>,
    how: Flavour,
    latest: Mutex<Option<SimNet>>,
}

/// A virtio function of QEMU's that has no driver.
struct Function {
    platform: Arc<dyn Platform>,
    /// The driver to check.
    parent: &'static str,
    function: Arc<PciDevice>,
    device_type: u32,
    service: Service,
    abilities: Abilities,
}

impl Subject for SimulatedDisk {
    fn name(&self) -> &'static str {
        "sim-blk"
    }

    fn device_type(&self) -> u32 {
        BLK
    }

    fn abilities(&self) -> Abilities {
        Abilities::all()
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform)
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        let made = ram_disk().and_then(|disk| sim_blk(&disk, flavour(self.how), &self.platform));
        Box::pin(ready(made.map_err(|_| OpError::OutOfResources)))
    }

    fn service(&self) -> Service {
        Service::Blk
    }
}

impl Subject for SimulatedCard {
    fn name(&self) -> &'static str {
        "sim-net"
    }

    fn device_type(&self) -> u32 {
        NET
    }

    fn abilities(&self) -> Abilities {
        Abilities::all()
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform)
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        let made = sim_net(flavour(self.how), &self.platform).map(|(handle, ops)| {
            *self.latest.lock() = Some(handle);
            ops
        });
        Box::pin(ready(made.map_err(|_| OpError::OutOfResources)))
    }

    fn service(&self) -> Service {
        Service::NetLoopback
    }

    fn change_config(&self) -> bool {
        let latest = self.latest.lock();
        latest.as_ref().is_some_and(|card| {
            card.set_link(Link::Down);
            card.set_link(Link::Up);
            true
        })
    }
}

impl Function {
    async fn probe(&self) -> Result<Parent, ProbeError> {
        if self.parent == "vp_vdpa" {
            return vp_vdpa::probe(&self.function, &self.platform, self.device_type).await;
        }
        let driver = Ifcvf::new(Arc::clone(&self.platform), VdpaBus::new("nowhere"));
        let driver = driver.with_ids(QEMU_IDS);
        let mut rows = driver.ids().iter();
        let row = rows.find(|row| row.matches(self.function.identity()));
        let row = row.ok_or_else(|| ProbeError::unsuitable(Unsuitable::NotVirtio))?;
        ifcvf::probe(&self.function, &self.platform, row).await
    }
}

impl Subject for Function {
    fn name(&self) -> &str {
        self.parent
    }

    fn device_type(&self) -> u32 {
        self.device_type
    }

    fn abilities(&self) -> Abilities {
        self.abilities
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform)
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        Box::pin(async {
            match self.probe().await {
                Ok(parent) => Ok(Box::new(parent) as Box<dyn VdpaOps>),
                Err(ProbeError::Device(error)) => Err(error),
                Err(_) => Err(OpError::OutOfResources),
            }
        })
    }

    fn service(&self) -> Service {
        self.service
    }

    fn unit(&self, _root: &Arc<Node>) -> Arc<IsolationUnit> {
        Arc::clone(self.function.isolation_unit())
    }

    /// QEMU before 10.0 leaves it as it is without `MRG_RXBUF`.
    fn sets_num_buffers(&self) -> bool {
        false
    }
}
