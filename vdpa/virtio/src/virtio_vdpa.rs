//! The bus driver that makes a vDPA device a device of the virtio bus, for the drivers of this
//! kernel.
//!
//! A thin adapter: it brings the two buses together and moves no data. A failed set-up of a queue,
//! and whatever else a virtio driver leaves behind, is cleaned up by the devices themselves. It
//! also moves virtio devices from one vDPA device to another while they run.

mod transport;

use alloc::boxed::Box;
use alloc::sync::Arc;

use vdpa::bus::{Bound, CarryError, Driver, ProbeError};
use vdpa::device::{VdpaBus, VdpaClaim, VdpaDevice, VdpaId};
use vdpa::dma::DmaSpace;
use vdpa::platform::BoxFuture;

use crate::{CreateError, Memory, MoveError, Transport, VirtioBus, VirtioDevice};

use self::transport::VdpaTransport;

/// What the driver is called.
const NAME: &str = "virtio_vdpa";

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

    /// Moves the virtio device of `from` to `to` while it runs, both on `vdpa` and `to` without a
    /// driver. Afterwards this driver has `to`, and `from` has been reset and has none.
    ///
    /// # Errors
    /// [`MoveError`]; what that means for the devices is said at [`VirtioDevice::move_to`].
    pub async fn move_device(
        &self,
        vdpa: &VdpaBus,
        from: &Arc<VdpaDevice>,
        to: &Arc<VdpaDevice>,
    ) -> Result<(), MoveError> {
        let device = self.device_of(from).ok_or(MoveError::NotRunning)?;
        let carry = vdpa.give_up(from, NAME, adopt(vdpa, to, &device));
        carry.await.map_err(flatten)
    }

    /// Moves the virtio device of `from` to another transport while it runs. Afterwards `from`, on
    /// `vdpa`, has been reset and has no driver. The caller has the device now.
    ///
    /// # Errors
    /// As for [`move_device`](Self::move_device).
    pub async fn hand_over(
        &self,
        vdpa: &VdpaBus,
        from: &Arc<VdpaDevice>,
        to: Arc<dyn Transport>,
    ) -> Result<Arc<VirtioDevice>, MoveError> {
        let Some(device) = self.device_of(from) else {
            to.close().await;
            return Err(MoveError::NotRunning);
        };
        let carry = vdpa.give_up(from, NAME, device.move_to(to));
        carry.await.map_err(flatten)?;
        Ok(device)
    }

    /// The virtio device that a vDPA device has become.
    fn device_of(&self, vdpa: &Arc<VdpaDevice>) -> Option<Arc<VirtioDevice>> {
        let mut devices = self.bus.devices().into_iter();
        devices.find(|device| {
            let transport = device.transport();
            transport.is_ok_and(|transport| Arc::ptr_eq(&transport.info().node, vdpa.node()))
        })
    }
}

/// Moves a virtio device that runs to `to`, on `vdpa` and without a driver, which this driver has
/// afterwards.
///
/// # Errors
/// As for [`VirtioVdpa::move_device`].
pub fn adopt<'a>(
    vdpa: &'a VdpaBus,
    to: &'a Arc<VdpaDevice>,
    device: &'a Arc<VirtioDevice>,
) -> BoxFuture<'a, Result<(), MoveError>> {
    Box::pin(async move {
        let carry = async |claim| {
            let transport = VdpaTransport::open(claim).await.map_err(MoveError::To)?;
            device.move_to(transport).await?;
            let device = Arc::clone(device);
            Ok(Box::new(Binding { device }) as Box<dyn Bound>)
        };
        vdpa.adopt(to, NAME, carry).await.map_err(flatten)
    })
}

fn flatten(error: CarryError<MoveError>) -> MoveError {
    match error {
        CarryError::NotThere => MoveError::NotFree,
        CarryError::Carry(error) => error,
    }
}

impl Driver<VdpaDevice> for VirtioVdpa {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ids(&self) -> &[VdpaId] {
        &[VdpaId::Any]
    }

    fn probe<'a>(
        &'a self,
        vdpa: VdpaClaim,
        _id: Option<&'a VdpaId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            let transport = VdpaTransport::open(vdpa).await?;
            let space = DmaSpace::new(&transport.info().platform);
            space.attach(transport.map_target())?;
            let memory = Memory {
                allocator: space.allocator(),
                space: Arc::clone(&space),
            };
            // SAFETY: the allocator's space is attached to the device.
            let created =
                unsafe { VirtioDevice::create(&self.bus, transport.clone(), memory) }.await;
            match created {
                Ok(device) => Ok(Box::new(Binding { device }) as Box<dyn Bound>),
                Err(error) => {
                    space.detach();
                    transport.close().await;
                    Err(error.into())
                }
            }
        })
    }
}

impl From<CreateError> for ProbeError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::OutOfIds(_) => Self::OutOfResources,
            CreateError::Device(error) => Self::Device(error),
            CreateError::NoType | CreateError::UnknownType | CreateError::Bus(_) => {
                Self::unsuitable(error)
            }
        }
    }
}

/// A vDPA device that is on the virtio bus.
struct Binding {
    device: Arc<VirtioDevice>,
}

impl Bound for Binding {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.device.withdraw().await })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.device.shut_down().await;
        })
    }
}
