//! The bus driver that makes a vDPA device a device of the virtio bus, for the drivers of this kernel.
//!
//! A thin adapter: it brings the two buses together and moves no data. A failed set-up of a queue, and
//! whatever else a virtio driver leaves behind, is cleaned up by the devices themselves.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::bus::{Bound, Driver, ProbeError};
use crate::device::{VdpaDevice, VdpaId};
use crate::platform::BoxFuture;
use crate::virtio::{VirtioBus, VirtioDevice};

/// The driver.
#[derive(Debug)]
pub struct VirtioVdpa {
    bus: Arc<VirtioBus>,
}

impl VirtioVdpa {
    /// A driver that puts its devices on `bus`.
    #[must_use]
    pub fn new(bus: Arc<VirtioBus>) -> Self {
        Self { bus }
    }
}

impl Driver<VdpaDevice> for VirtioVdpa {
    fn name(&self) -> &'static str {
        "virtio_vdpa"
    }

    fn ids(&self) -> &[VdpaId] {
        &[VdpaId::Any]
    }

    fn probe<'a>(
        &'a self,
        vdpa: &'a Arc<VdpaDevice>,
        _id: Option<&'a VdpaId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            let device_type = known_type(vdpa.device_type())?;
            let id = self
                .bus
                .allocate_id()
                .map_err(|_| ProbeError::OutOfResources)?;
            let device = VirtioDevice::new(vdpa, device_type, id);
            self.bus
                .add_device(Arc::clone(&device))
                .await
                .map_err(|_| ProbeError::Unsuitable("the virtio bus does not take it"))?;
            Ok(Box::new(Binding {
                bus: Arc::clone(&self.bus),
                device,
            }) as Box<dyn Bound>)
        })
    }
}

/// The device type, if it is one of the specification's (VIRTIO 1.2, section 5).
fn known_type(device_type: u32) -> Result<virtio::Id, ProbeError> {
    match u8::try_from(device_type).map(virtio::Id::from) {
        Ok(virtio::Id::Reserved) => Err(ProbeError::Unsuitable("its virtio device type is 0")),
        Ok(virtio::Id::Unknown(_)) | Err(_) => {
            Err(ProbeError::Unsuitable("its virtio device type is unknown"))
        }
        Ok(known) => Ok(known),
    }
}

/// A vDPA device that is on the virtio bus.
struct Binding {
    bus: Arc<VirtioBus>,
    device: Arc<VirtioDevice>,
}

impl Bound for Binding {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.bus.remove_device(&self.device).await })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // The system goes down; a device that does not reset has been logged.
            let _ = self.device.reset().await;
        })
    }
}
