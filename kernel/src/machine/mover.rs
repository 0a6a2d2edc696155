//! Moves devices for management: what the kernel's own drivers use goes on on another device.

use alloc::boxed::Box;
use alloc::sync::Arc;

use vdpa::device::{VdpaBus, VdpaDevice};
use vdpa::moving::{MoveError, Mover};
use vdpa::platform::BoxFuture;
use virtio_bus::virtio_vdpa::VirtioVdpa;

/// No driver has this name, so a device with this override has none.
const NOBODY: &str = "none";

pub(crate) struct VirtioMover {
    pub(crate) virtio_vdpa: Arc<VirtioVdpa>,
    pub(crate) vdpa: Arc<VdpaBus>,
}

impl Mover for VirtioMover {
    fn move_device<'a>(
        &'a self,
        from: &'a Arc<VdpaDevice>,
        to: &'a Arc<VdpaDevice>,
    ) -> BoxFuture<'a, Result<(), MoveError>> {
        Box::pin(async move {
            if from.device_type() != to.device_type() {
                return Err(MoveError::OtherType);
            }
            self.vdpa.set_override(to, Some(NOBODY)).await;
            let moved = self.virtio_vdpa.move_device(&self.vdpa, from, to).await;
            if moved.is_ok() {
                // Its driver would claim it anew.
                self.vdpa.set_override(from, Some(NOBODY)).await;
            }
            self.vdpa.set_override(to, None).await;
            moved
        })
    }
}
