//! A driver that keeps a device for somebody who drives it by hand: the conformance suite, a test.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::future::ready;

use spin::Mutex;

use crate::bus::{Bound, Driver, ProbeError};
use crate::device::{VdpaBus, VdpaClaim, VdpaDevice, VdpaId};
use crate::platform::BoxFuture;

/// Drives one device, by doing nothing.
struct Keeper {
    name: String,
    claim: Mutex<Option<VdpaClaim>>,
}

/// Takes a device from its driver, if it has one, and keeps it for the caller until it leaves its
/// bus or its [override](crate::bus::Bus::set_override) is changed. `None`, if the device is not on
/// the bus.
pub async fn hold(bus: &Arc<VdpaBus>, device: &Arc<VdpaDevice>) -> Option<VdpaClaim> {
    let keeper = Arc::new(Keeper {
        name: format!("keeper of {}", device.node().name()),
        claim: Mutex::new(None),
    });
    let driver = Arc::clone(&keeper) as Arc<dyn Driver<VdpaDevice>>;
    // An earlier keeper, of this device or of one that bore its name.
    bus.remove_driver(&keeper.name).await;
    bus.add_driver(driver).await.ok()?;
    bus.set_override(device, Some(&keeper.name)).await;
    keeper.claim.lock().take()
}

impl Driver<VdpaDevice> for Keeper {
    fn name(&self) -> &str {
        &self.name
    }

    fn probe<'a>(
        &'a self,
        device: VdpaClaim,
        _id: Option<&'a VdpaId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        *self.claim.lock() = Some(device);
        Box::pin(ready(Ok(Box::new(()) as Box<dyn Bound>)))
    }
}
