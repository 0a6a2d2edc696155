//! How a simulated device comes to life: a device, its worker and its operations.

use alloc::boxed::Box;
use alloc::sync::Arc;

use vdpa::{Platform, VdpaOps};

use super::bell::Bell;
use super::device::Device;
use super::model::Model;
use super::ops::Ops;
use super::worker::work;
use super::{CreateError, SimConfig};

/// The device, and its operations.
type Launched<M> = (Arc<Device<M>>, Box<dyn VdpaOps>);

/// Makes a device and starts its worker. It ends with the returned operations.
pub(super) fn launch<M: Model>(
    model: M,
    config: &SimConfig,
    bell: Arc<Bell>,
    platform: &Arc<dyn Platform>,
) -> Result<Launched<M>, CreateError> {
    let device = Device::new(model, config, bell, platform)?;
    platform.spawn(device.shape.name, Box::pin(work(Arc::clone(&device))));
    let ops = Box::new(Ops(Arc::clone(&device)));
    Ok((device, ops))
}
