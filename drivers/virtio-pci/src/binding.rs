//! From a function that has been brought up to a device on the vDPA bus, and back.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};

use pci::{BusMaster, Identity, PciDevice};
use vdpa::bus::{Bound, BusDevice, Claim, ProbeError};
use vdpa::device::{DeviceKind, Removal, VdpaBus, VdpaDevice, VdpaDeviceConfig};
use vdpa::platform::BoxFuture;
use vdpa::{Platform, VdpaOps};

use super::demands::Demands;
use super::parent::Parent;

/// What a driver of virtio functions works with.
pub(crate) struct Binder {
    /// The driver's name.
    pub(crate) name: &'static str,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) bus: Arc<VdpaBus>,
}

impl Binder {
    /// Brings a function up that meets the demands, and registers its device.
    ///
    /// # Errors
    /// [`ProbeError`]: the function is as before.
    pub(crate) fn bind<'a>(
        &'a self,
        function: Claim<PciDevice>,
        demands: Result<Demands, ProbeError>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            let parent = Parent::probe(&function, &self.platform, demands?).await?;
            self.register(&function, parent).await
        })
    }

    async fn register(
        &self,
        function: &Arc<PciDevice>,
        parent: Parent,
    ) -> Result<Box<dyn Bound>, ProbeError> {
        let (name, address) = (self.name, function.address());
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
            "pci {address} [{vendor:04x}:{device_id:04x}] class {class:06x}: {name}, {queues}, {vectors}"
        );
        let config = VdpaDeviceConfig {
            parent: Arc::clone(function.node()),
            dma: Arc::clone(function.isolation_unit()),
            platform: Arc::clone(&self.platform),
            kind: kind(function),
            name: None,
        };
        let master = parent.bus_master();
        let registered = self.bus.register(Box::new(parent), config).await;
        let device = registered.map_err(|error| {
            log::warn!("pci {address}: {name}: {error}");
            ProbeError::OutOfResources
        })?;
        Ok(Box::new(BoundFunction {
            name,
            function: Arc::clone(function),
            bus: Arc::clone(&self.bus),
            device,
            master,
        }))
    }
}

/// What the function is on its card. One that was handed to this machine alone shows nothing of the
/// card.
fn kind(function: &PciDevice) -> DeviceKind {
    match function.physical_function() {
        Some(pf) => DeviceKind::Vf {
            pf: Arc::clone(pf.node()),
        },
        None => DeviceKind::Pf,
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A function that has become a vDPA device.
struct BoundFunction {
    name: &'static str,
    function: Arc<PciDevice>,
    bus: Arc<VdpaBus>,
    device: Arc<VdpaDevice>,
    master: Weak<BusMaster>,
}

impl Bound for BoundFunction {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let present = self.function.config().is_present();
            let removal = if present {
                Removal::Orderly
            } else {
                // SAFETY: nothing answers in the function's place, so it has been pulled out or has
                // no power or link, and a function that is off the bus sends no requests.
                unsafe { Removal::surprise() }
            };
            let removed = self.bus.unregister(&self.device, removal).await;
            log::info!(
                "pci {}: {}: removed ({removed:?})",
                self.function.address(),
                self.name
            );
        })
    }

    /// The consumers above have stopped; now the function can reach no memory any more.
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(master) = self.master.upgrade() {
                master.stop();
            }
        })
    }
}
