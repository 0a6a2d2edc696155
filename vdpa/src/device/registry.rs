//! How a device comes to the vDPA bus and how it leaves.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use spin::Mutex;

use crate::Node;
use crate::bus::AddError;
use crate::ids::{IdGuard, OutOfIds};
use crate::ops::{DmaModel, VdpaOps};
use crate::platform::BoxFuture;
use crate::wait::AsyncMutex;

use super::attachment::OwnerSlot;
use super::on_bus::Inspector;
use super::session::Session;
use super::type_name::type_name;
use super::vanished::Vanished;
use super::{Counters, DeviceKind, VdpaBus, VdpaDevice, VdpaDeviceConfig, presence};

/// Why a device cannot be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A queue's largest size is below the smallest that the device takes.
    #[error("a queue's largest size is below its smallest")]
    BadQueueSize,
    /// A part of a function for which the platform translates, and nothing to tell it from the
    /// others by.
    #[error("a part of a function needs a PASID of its own")]
    NoPasid,
    /// Every index is taken.
    #[error(transparent)]
    OutOfIds(#[from] OutOfIds),
    /// The bus does not take it.
    #[error(transparent)]
    Bus(#[from] AddError),
}

/// What management keeps with a device that it has made on demand.
pub type Creator = Box<dyn Any + Send + Sync>;

/// Why a device leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is asked to: the hardware is there and can be reset.
    Orderly,
    /// It has disappeared: no register may be touched, and its memory is free without a reset.
    Surprise(Vanished),
}

impl Removal {
    /// The hardware has disappeared.
    ///
    /// ```compile_fail,E0133
    /// let attack = vdpa::device::Removal::surprise();
    /// ```
    ///
    /// # Safety
    /// The device that leaves in this way reaches no memory from now on: its hardware has lost its
    /// place, its link or its power.
    #[must_use]
    pub const unsafe fn surprise() -> Self {
        Self::Surprise(Vanished(()))
    }
}

/// How a device has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It has stopped, and all its memory is free.
    Clean,
    /// It did not confirm its reset: the memory of so many queues is lost to it, for safety.
    Leaked {
        /// The number of queues.
        queues: u64,
    },
}

impl VdpaBus {
    /// Makes a device and puts it on the bus, where a driver may claim it at once.
    ///
    /// # Errors
    /// [`RegisterError`]: nothing is left of the device, and `ops` has been dropped.
    pub fn register(
        self: &Arc<Self>,
        ops: Box<dyn VdpaOps>,
        config: VdpaDeviceConfig,
    ) -> BoxFuture<'_, Result<Arc<VdpaDevice>, RegisterError>> {
        Box::pin(self.register_created(ops, config, None))
    }

    /// As [`register`](Self::register), for a management device that makes devices on demand.
    ///
    /// # Errors
    /// As for [`register`](Self::register).
    pub fn register_for(
        self: &Arc<Self>,
        ops: Box<dyn VdpaOps>,
        config: VdpaDeviceConfig,
        creator: Creator,
    ) -> BoxFuture<'_, Result<Arc<VdpaDevice>, RegisterError>> {
        Box::pin(self.register_created(ops, config, Some(creator)))
    }

    async fn register_created(
        self: &Arc<Self>,
        ops: Box<dyn VdpaOps>,
        config: VdpaDeviceConfig,
        creator: Option<Creator>,
    ) -> Result<Arc<VdpaDevice>, RegisterError> {
        let queues = ops.queue_count();
        let smallest = ops.queue_size_min();
        let abilities = ops.abilities();
        if (0..queues).any(|queue| ops.queue_size_max(queue) < smallest) {
            return Err(RegisterError::BadQueueSize);
        }
        let is_part = matches!(config.kind, DeviceKind::Adi { .. });
        if is_part && config.dma.pasid().is_none() && matches!(ops.dma_model(), DmaModel::Platform)
        {
            return Err(RegisterError::NoPasid);
        }
        let (id, automatic) = self.next_name()?;
        let node = Node::child(&config.parent, config.name.as_ref().unwrap_or(&automatic));
        let device = Arc::new(VdpaDevice {
            ops,
            config,
            creator,
            node,
            presence: AtomicU8::new(presence::PRESENT),
            workers_stopped: AtomicBool::new(false),
            turn: AsyncMutex::default(),
            session: Mutex::new(Session::new(queues, abilities)),
            owner_slot: OwnerSlot::default(),
            counters: Counters::default(),
            _id: id,
        });
        device
            .node
            .set_inspector(Some(Arc::new(Inspector(Arc::downgrade(&device)))));
        log::info!(
            "{} on {}: {} device, vendor {:#06x}",
            device.node.name(),
            device.config.parent.name(),
            type_name(device.device_type()),
            device.vendor_id(),
        );
        self.add_device(Arc::clone(&device)).await?;
        Ok(device)
    }

    /// A number, and the name that comes with it unless a device has been given that very name.
    fn next_name(&self) -> Result<(IdGuard, String), OutOfIds> {
        let devices = self.devices();
        let mut passed_over = Vec::new();
        loop {
            let id = self.allocate_id()?;
            let name = format!("vdpa{}", id.number());
            if devices.iter().all(|device| device.node.name() != name) {
                return Ok((id, name));
            }
            passed_over.push(id);
        }
    }

    /// Takes a device off the bus: its operations fail, its driver lets go, its queues stop, it is
    /// reset, its workers end. It never takes longer than the deadlines of these operations.
    ///
    /// A device that does not confirm its reset may go on writing. Its memory stays allocated, and
    /// the caller is told.
    pub fn unregister<'a>(
        &'a self,
        device: &'a Arc<VdpaDevice>,
        removal: Removal,
    ) -> BoxFuture<'a, Removed> {
        Box::pin(async move {
            device.depart(match removal {
                Removal::Orderly => presence::LEAVING,
                Removal::Surprise(_) => presence::GONE,
            });
            self.remove_device(device).await;
            match device.counters.leaked_queues.load(Ordering::Relaxed) {
                0 => Removed::Clean,
                queues => Removed::Leaked { queues },
            }
        })
    }
}

impl VdpaDevice {
    /// Goes on to a later state of presence, never back.
    pub(super) fn depart(&self, presence: u8) {
        self.presence.fetch_max(presence, Ordering::AcqRel);
    }
}
