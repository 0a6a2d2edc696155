//! The devices of the machine: the buses, the drivers on them, and what is found.

use alloc::sync::Arc;
use core::ops::Range;

use drivers::Registry;
use drivers::blk::{BlkDriver, Disk};
use drivers::net::{NetDevice, NetDriver, NetOptions};
use drivers::pci::{
    ConfigAccess, Ecam, EcamRegion, PciBus, PciRoot, PortConfig, Windows, X86Ports,
};
use drivers::vp_vdpa::VpVdpa;
use embassy_time::{Duration, with_timeout};
use vdpa::bus::{Bus, BusDevice, Driver};
use vdpa::device::VdpaBus;
use vdpa::platform::PhysAddr;
use vdpa::virtio::VirtioBus;
use vdpa::virtio_vdpa::VirtioVdpa;
use vdpa::{Node, Platform, power};
use x86_64::instructions::port::Port;

use crate::acpi::Acpi;
use crate::address_space;

/// How long the devices may take to come to rest when the machine ends.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// The buses with their drivers, and the devices that are ready for use.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) root: Arc<Node>,
    pub(crate) pci: Arc<PciBus>,
    pub(crate) vdpa: Arc<VdpaBus>,
    pub(crate) virtio: Arc<VirtioBus>,
    pub(crate) nets: Arc<Registry<NetDevice>>,
    pub(crate) disks: Arc<Registry<Disk>>,
}

impl Devices {
    /// Buses with drivers, and no devices yet.
    pub(crate) async fn new(platform: Arc<dyn Platform>) -> Self {
        let devices = Self {
            platform,
            root: Node::root("machine"),
            pci: PciBus::new("pci"),
            vdpa: VdpaBus::new("vdpa"),
            virtio: VirtioBus::new("virtio"),
            nets: Registry::new(),
            disks: Registry::new(),
        };
        let net = NetDriver::new(Arc::clone(&devices.nets), NetOptions::default());
        add_driver(&devices.virtio, net).await;
        add_driver(&devices.virtio, BlkDriver::new(Arc::clone(&devices.disks))).await;
        add_driver(&devices.vdpa, VirtioVdpa::new(Arc::clone(&devices.virtio))).await;
        let parent = VpVdpa::new(Arc::clone(&devices.platform), Arc::clone(&devices.vdpa));
        add_driver(&devices.pci, parent).await;
        devices
    }

    /// Finds the PCI functions and lets the drivers have them. `memory` is every range that the
    /// memory map names.
    pub(crate) async fn find(&self, acpi: &Acpi, memory: &[Range<u64>]) {
        let config_space = acpi.config_regions.iter().map(|region| region.range());
        let windows = Windows {
            mem32: address_space::window_below_4_gib(memory, config_space),
            mem64: address_space::window_above(memory, crate::cpu::physical_address_mask()),
            io: Some(address_space::PORTS),
        };
        if acpi.config_regions.is_empty() {
            if has_config_ports() {
                // SAFETY: the machine has the ports, and nothing else uses them.
                let access = PortConfig::new(unsafe { X86Ports::take() });
                self.enumerate(Arc::new(access), windows).await;
            }
            return;
        }
        for region in &acpi.config_regions {
            let region = EcamRegion {
                base: PhysAddr(region.base),
                segment: region.segment,
                buses: region.first_bus..=region.last_bus,
            };
            let access = Ecam::new(Arc::clone(&self.platform), region);
            self.enumerate(Arc::new(access), windows.clone()).await;
        }
    }

    async fn enumerate(&self, access: Arc<dyn ConfigAccess>, windows: Windows) {
        let root = PciRoot::new(access, Arc::clone(&self.platform), windows);
        let count = root.enumerate(&self.pci, &self.root).await;
        log::debug!("pci: {count} functions");
    }

    /// Brings every device to rest, so that none of them uses memory any more.
    pub(crate) async fn shutdown(&self) {
        if with_timeout(SHUTDOWN_LIMIT, power::shutdown(&self.root))
            .await
            .is_err()
        {
            log::error!("some devices did not come to rest");
        }
    }
}

async fn add_driver<D: BusDevice>(bus: &Arc<Bus<D>>, driver: impl Driver<D> + 'static) {
    if let Err(error) = bus.add_driver(Arc::new(driver)).await {
        log::error!("a driver is not available: {error}");
    }
}

/// Whether the machine has the two ports of PCI's configuration mechanism: the index port holds
/// what is written to it.
fn has_config_ports() -> bool {
    const INDEX: u16 = 0xcf8;
    const ENABLE: u32 = 1 << 31;
    let mut index = Port::<u32>::new(INDEX);
    // SAFETY: selecting a register of the first function changes nothing; without the mechanism
    // nobody listens.
    unsafe { index.write(ENABLE) };
    // SAFETY: as above.
    unsafe { index.read() == ENABLE }
}
