//! The devices of the machine: the buses, the drivers on them, and what is found.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use embassy_time::{Duration, with_timeout};
use pci::{
    ConfigAccess, Ecam, EcamRegion, PciBus, PciRoot, PortConfig, PortDriver, Windows, X86Ports,
};
use vdpa::device::VdpaBus;
use vdpa::platform::{InterruptLine, PhysAddr, Signal};
use vdpa::{Node, Platform, power};
#[cfg(feature = "mgmt")]
use vdpa_mgmt::{Handle, Management};
#[cfg(feature = "sim")]
use vdpa_mgmt::{ManagementDevice, SimBlks, SimNets};
#[cfg(feature = "vduse")]
use vdpa_vduse::Control;
use virtio_blk::{BlkDriver, Disk};
use virtio_bus::Registry;
use virtio_bus::VirtioBus;
use virtio_bus::virtio_vdpa::VirtioVdpa;
use virtio_mmio::{Description, VirtioMmio};
use virtio_net::{NetDevice, NetDriver, NetOptions};
use virtio_pci::ifcvf::{Ifcvf, QEMU_IDS};
use virtio_pci::vp_vdpa::VpVdpa;
use x86_64::instructions::port::Port;

#[cfg(feature = "vhost")]
use crate::machine::clients::Clients;
use crate::machine::drivers::add_driver;
#[cfg(feature = "mgmt")]
use crate::machine::mover::VirtioMover;
use crate::pure::acpi::{Acpi, ConfigRegion, MAX_REGIONS, Polarity, Trigger, VirtioDevice};
use crate::pure::address_space;
use crate::pure::command_line::CommandLine;
#[cfg(not(feature = "vhost"))]
use crate::pure::data_paths::DataPath;
use crate::pure::data_paths::{DataPaths, QemuParent};

/// The option that names a virtio device in memory, as Linux has it.
const VIRTIO_MMIO: &str = "virtio_mmio.device";
/// The option that says where PCI configuration space is, for a machine whose firmware does not.
const ECAM: &str = "pci.ecam";

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
    pub(crate) virtio_vdpa: Arc<VirtioVdpa>,
    pub(crate) nets: Arc<Registry<NetDevice>>,
    pub(crate) disks: Arc<Registry<Disk>>,
    #[cfg(feature = "mgmt")]
    pub(crate) management: Arc<Management>,
    #[cfg(feature = "vduse")]
    pub(crate) vduse: Arc<Control>,
    #[cfg(feature = "vhost")]
    pub(crate) clients: Arc<Clients>,
}

impl Devices {
    /// Buses with drivers, and no devices yet.
    pub(crate) async fn new(platform: Arc<dyn Platform>, paths: DataPaths) -> Self {
        let (vdpa, virtio) = (VdpaBus::new("vdpa"), VirtioBus::new("virtio"));
        let (nets, disks) = (Registry::new(), Registry::new());
        #[cfg(feature = "vhost")]
        let clients = Clients::new(&platform, &nets, &disks, paths).await;
        let devices = Self {
            #[cfg(feature = "mgmt")]
            management: Management::new(Arc::clone(&vdpa), handle),
            #[cfg(feature = "vduse")]
            vduse: Control::new(&platform),
            platform,
            root: Node::root("machine"),
            pci: PciBus::new("pci"),
            vdpa,
            virtio_vdpa: Arc::new(VirtioVdpa::new(Arc::clone(&virtio))),
            virtio,
            nets,
            disks,
            #[cfg(feature = "vhost")]
            clients,
        };
        #[cfg(feature = "mgmt")]
        devices.management.offer_moves(Arc::new(VirtioMover {
            virtio_vdpa: Arc::clone(&devices.virtio_vdpa),
            vdpa: Arc::clone(&devices.vdpa),
        }));
        let net = NetDriver::new(Arc::clone(&devices.nets), NetOptions::default());
        add_driver(&devices.virtio, Arc::new(net)).await;
        let blk = BlkDriver::new(Arc::clone(&devices.disks));
        add_driver(&devices.virtio, Arc::new(blk)).await;
        let virtio_vdpa = Arc::clone(&devices.virtio_vdpa);
        add_driver(&devices.vdpa, virtio_vdpa).await;
        #[cfg(feature = "vhost")]
        add_driver(&devices.vdpa, Arc::new(devices.clients.driver())).await;
        #[cfg(not(feature = "vhost"))]
        if [paths.net, paths.blk].contains(&DataPath::Vhost) {
            log::warn!("this kernel has no vhost: it drives all devices itself");
        }
        let parent = VpVdpa::new(Arc::clone(&devices.platform), Arc::clone(&devices.vdpa));
        add_driver(&devices.pci, Arc::new(parent)).await;
        let mut parent = Ifcvf::new(Arc::clone(&devices.platform), Arc::clone(&devices.vdpa));
        if paths.qemu == QemuParent::Ifcvf {
            parent = parent.with_ids(QEMU_IDS);
        }
        add_driver(&devices.pci, Arc::new(parent)).await;
        let ports = PortDriver::new(&devices.pci);
        add_driver(&devices.pci, Arc::new(ports)).await;
        #[cfg(feature = "sim")]
        devices.offer_simulators().await;
        #[cfg(feature = "vduse")]
        devices.offer_tasks().await;
        devices
    }

    /// Lets users of management take the devices of tasks.
    #[cfg(feature = "vduse")]
    async fn offer_tasks(&self) {
        let vduse = vdpa_mgmt::Vduse::new(&self.vduse, &self.root, &self.platform);
        if let Err(error) = self.management.register(vduse).await {
            log::error!("devices of tasks are not available: {error}");
        }
    }

    /// Lets users of management make simulated devices.
    #[cfg(feature = "sim")]
    async fn offer_simulators(&self) {
        let nets = SimNets::new(&self.root, &self.platform);
        let disks = SimBlks::new(&self.root, &self.platform);
        let simulators: [Arc<dyn ManagementDevice>; 2] = [nets, disks];
        for simulator in simulators {
            if let Err(error) = self.management.register(simulator).await {
                log::error!("simulated devices are not available: {error}");
            }
        }
    }

    /// Finds the devices and lets the drivers have them, those of the kernel and those of clients.
    /// `memory` is every range that the memory map names, and `segments` what
    /// [`config_access`] has returned.
    pub(crate) async fn find(
        &self,
        acpi: &Acpi,
        line: &CommandLine,
        memory: &[Range<u64>],
        segments: Vec<Arc<dyn ConfigAccess>>,
    ) {
        self.find_functions(acpi, line, memory, segments).await;
        self.find_virtio_mmio(acpi, line).await;
        #[cfg(feature = "vhost")]
        self.clients.start().await;
    }

    /// Puts virtio devices in memory on the vDPA bus: those that firmware describes, which knows
    /// more, then those of the command line.
    async fn find_virtio_mmio(&self, acpi: &Acpi, line: &CommandLine) {
        let mut places = VirtioMmio::new(&self.platform, &self.vdpa, &self.root);
        for device in &acpi.virtio_devices {
            let place = description(device);
            // SAFETY: firmware says what is there.
            unsafe { places.attach(&place) }.await;
        }
        let described = line.entries().filter(|(key, _)| *key == VIRTIO_MMIO);
        for (_, text) in described {
            match text.parse() {
                Ok(description) => {
                    // SAFETY: so does the one who starts the machine.
                    unsafe { places.attach(&description) }.await;
                }
                Err(error) => log::warn!("{VIRTIO_MMIO}={text}: {error}"),
            }
        }
    }

    async fn find_functions(
        &self,
        acpi: &Acpi,
        line: &CommandLine,
        memory: &[Range<u64>],
        segments: Vec<Arc<dyn ConfigAccess>>,
    ) {
        let regions = config_regions(acpi, line);
        let config_space = regions.iter().map(ConfigRegion::range);
        let windows = Windows {
            mem32: address_space::window_below_4_gib(memory, config_space),
            mem64: address_space::window_above(
                memory,
                crate::machine::cpu::physical_address_mask(),
            ),
            io: Some(address_space::PORTS),
            reach: address_space::reach(crate::machine::cpu::physical_address_mask()),
        };
        for access in segments {
            self.enumerate(access, windows.clone(), acpi).await;
        }
    }

    async fn enumerate(&self, access: Arc<dyn ConfigAccess>, windows: Windows, acpi: &Acpi) {
        let mut root = PciRoot::new(access, Arc::clone(&self.platform), windows);
        // Before anybody is given a device that one of these translates for.
        #[cfg(feature = "iommu")]
        {
            root = root.with_first(&[virtio_pci::vp_vdpa::IOMMU]);
        }
        if !acpi.has_one_root_bus {
            root = root.with_other_roots();
        }
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

/// Where PCI configuration space is in memory.
fn config_regions(acpi: &Acpi, line: &CommandLine) -> heapless::Vec<ConfigRegion, MAX_REGIONS> {
    match line.get(ECAM).map(address) {
        Some(Some(base)) => [ConfigRegion::at(base)].into_iter().collect(),
        _ => acpi.config_regions.clone(),
    }
}

/// How the configuration space of each PCI segment is reached. Called once.
pub(crate) fn config_access(
    platform: &Arc<dyn Platform>,
    acpi: &Acpi,
    line: &CommandLine,
) -> Vec<Arc<dyn ConfigAccess>> {
    if let Some(text) = line.get(ECAM)
        && address(text).is_none()
    {
        log::warn!("{ECAM}={text}: not an address of whole MiB, such as 0xe0000000");
    }
    let regions = config_regions(acpi, line);
    if regions.is_empty() && has_config_ports() {
        // SAFETY: the machine has the ports, and nothing else uses them.
        let access = PortConfig::new(unsafe { X86Ports::take() });
        return Vec::from([Arc::new(access) as Arc<dyn ConfigAccess>]);
    }
    regions
        .iter()
        .map(|region| {
            let region = EcamRegion {
                base: PhysAddr(region.base),
                segment: region.segment,
                buses: region.first_bus..=region.last_bus,
            };
            // SAFETY: firmware, or the one who starts the machine, says where configuration space
            // lies.
            let access = unsafe { Ecam::new(Arc::clone(platform), region) };
            Arc::new(access) as Arc<dyn ConfigAccess>
        })
        .collect()
}

/// What management calls the parent of a device that came by itself: a PCI function's node is named
/// by its bus and its address.
#[cfg(feature = "mgmt")]
fn handle(parent: &Node) -> Handle {
    match parent.name().strip_prefix("pci") {
        Some(address) => Handle::on_bus("pci", address),
        None => Handle::named(parent.name()),
    }
}

/// What firmware says of a virtio device, for its driver.
fn description(device: &VirtioDevice) -> Description {
    let signal = match (device.trigger, device.polarity) {
        (Trigger::Edge, Polarity::High) => Signal::Rising,
        (Trigger::Edge, Polarity::Low) => Signal::Falling,
        (Trigger::Level, Polarity::High) => Signal::High,
        (Trigger::Level, Polarity::Low) => Signal::Low,
    };
    Description {
        base: PhysAddr(device.base),
        size: device.size,
        line: InterruptLine {
            number: device.interrupt,
            signal,
        },
    }
}

/// The hexadecimal address of a PCI configuration space.
fn address(text: &str) -> Option<u64> {
    let address = u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()?;
    (address != 0 && address.is_multiple_of(1 << 20)).then_some(address)
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
