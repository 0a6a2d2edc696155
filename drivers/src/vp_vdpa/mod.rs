//! `vp_vdpa`: the parent driver that puts a modern virtio PCI function on the vDPA bus.
//!
//! It takes every function with a virtio id, also transitional ones, and drives it in modern mode
//! only. The device's addresses are translated by the platform. Whatever the function lacks (the
//! state of a running queue, stopping a single queue without `RING_RESET`, suspending the device without
//! `SUSPEND`) is reported as unsupported, not imitated.
//!
//! Source: VIRTIO 1.2, 3 and 4.1.

mod interrupts;
mod ops;
mod parent;
mod suspend;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use pci_types::CommandRegister;
use vdpa::bus::{Bound, BusDevice, Driver, ProbeError};
use vdpa::device::{DeviceKind, Removal, VdpaBus, VdpaDevice, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::platform::BoxFuture;
use vdpa::{Platform, VdpaOps};

use crate::pci::{Identity, PciDevice, PciId};

pub use self::parent::Parent;

const NAME: &str = "vp_vdpa";
const VIRTIO_VENDOR: u16 = 0x1af4;
/// Modern device ids count the virtio device type from here (VIRTIO 1.2, 4.1.2.1).
const MODERN_BASE: u16 = 0x1040;

/// `driver_data` of a row: where the virtio device type is.
const TYPE_IN_DEVICE_ID: u64 = 0;
/// As [`TYPE_IN_DEVICE_ID`]: a transitional function (VIRTIO 1.2, 4.1.2.3).
const TYPE_IN_SUBSYSTEM_ID: u64 = 1;

const IDS: &[PciId] = &[
    PciId {
        vendor: Some(VIRTIO_VENDOR),
        devices: MODERN_BASE..=0x107f,
        driver_data: TYPE_IN_DEVICE_ID,
        ..PciId::ANY
    },
    PciId {
        vendor: Some(VIRTIO_VENDOR),
        devices: 0x1000..=0x103f,
        driver_data: TYPE_IN_SUBSYSTEM_ID,
        ..PciId::ANY
    },
];

/// The driver of virtio functions on the PCI bus.
pub struct VpVdpa {
    platform: Arc<dyn Platform>,
    bus: Arc<VdpaBus>,
}

impl VpVdpa {
    /// A driver that puts its devices on `bus`.
    #[must_use]
    pub fn new(platform: Arc<dyn Platform>, bus: Arc<VdpaBus>) -> Self {
        Self { platform, bus }
    }

    async fn bind(
        &self,
        function: &Arc<PciDevice>,
        id: Option<&PciId>,
    ) -> Result<Box<dyn Bound>, ProbeError> {
        let device_type = device_type(function.identity(), id)?;
        let parent = Parent::probe(function, &self.platform, device_type).await?;
        let queues = counted(parent.queue_count().into(), "queue");
        let vectors = match parent.vectors() {
            0 => String::from("no MSI-X"),
            count => format!("MSI-X {}", counted(count, "vector")),
        };
        let Identity {
            vendor,
            device: device_id,
            class,
            ..
        } = function.identity();
        log::info!(
            "pci {} [{vendor:04x}:{device_id:04x}] class {class:06x}: {NAME}, {queues}, {vectors}",
            function.address(),
        );
        let config = VdpaDeviceConfig {
            parent: Arc::clone(function.node()),
            dma: IsolationUnit::new(function.node(), Some(requester_id(function)), None),
            platform: Arc::clone(&self.platform),
            kind: DeviceKind::Pf,
            name: None,
        };
        let registered = self.bus.register(Box::new(parent), config).await;
        let device = registered.map_err(|error| {
            log::warn!("pci {}: {NAME}: {error}", function.address());
            ProbeError::OutOfResources
        })?;
        let (function, bus) = (Arc::clone(function), Arc::clone(&self.bus));
        Ok(Box::new(BoundFunction {
            function,
            bus,
            device,
        }))
    }
}

/// The segment, and below it what the function's requests carry: bus, device and function.
fn requester_id(function: &PciDevice) -> u32 {
    let address = function.address();
    u32::from(address.segment()) << 16
        | u32::from(address.bus()) << 8
        | u32::from(address.device()) << 3
        | u32::from(address.function())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The virtio device type of a function. The row that has matched says where it is.
fn device_type(identity: &Identity, id: Option<&PciId>) -> Result<u32, ProbeError> {
    let device_type = match id.map(|id| id.driver_data) {
        Some(TYPE_IN_DEVICE_ID) => identity.device - MODERN_BASE,
        Some(TYPE_IN_SUBSYSTEM_ID) => identity.subdevice,
        _ => return Err(ProbeError::Unsuitable("not a virtio function")),
    };
    match device_type {
        0 => Err(ProbeError::Unsuitable(
            "a virtio function without a device type",
        )),
        known => Ok(u32::from(known)),
    }
}

impl Driver<PciDevice> for VpVdpa {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ids(&self) -> &[PciId] {
        IDS
    }

    fn probe<'a>(
        &'a self,
        device: &'a Arc<PciDevice>,
        id: Option<&'a PciId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(self.bind(device, id))
    }
}

impl fmt::Debug for VpVdpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VpVdpa").finish_non_exhaustive()
    }
}

/// A function that has become a vDPA device.
struct BoundFunction {
    function: Arc<PciDevice>,
    bus: Arc<VdpaBus>,
    device: Arc<VdpaDevice>,
}

impl Bound for BoundFunction {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let present = self.function.config().is_present();
            let removal = if present {
                Removal::Orderly
            } else {
                Removal::Surprise
            };
            let removed = self.bus.unregister(&self.device, removal).await;
            log::info!(
                "pci {}: {NAME}: removed ({removed:?})",
                self.function.address()
            );
        })
    }

    /// The consumers above have stopped; now the function can reach no memory any more.
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let master = CommandRegister::BUS_MASTER_ENABLE;
            self.function
                .config()
                .update_command(|command| command.difference(master));
        })
    }
}
