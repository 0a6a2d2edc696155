//! The vDPA device and its bus.
//!
//! A [`VdpaDevice`] wraps what a parent driver implements and is the one place that checks: every
//! index and size, the state machine of the virtio status, and whether the device is still there.
//! Behind it parents may trust their arguments; in front of it consumers may pass what they like.
//!
//! The bus is for devices with a virtio data path only; its drivers turn a device into something
//! that others can use (`virtio_vdpa`). One driver holds a device at a time.

mod attachment;
mod claim;
mod config_space;
mod deadline;
mod motion;
mod on_bus;
mod queue_setup;
mod queues;
mod registry;
mod session;
mod spaces;
mod type_name;
mod vanished;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use spin::Mutex;
use virtio::DeviceStatus;

use crate::bus::{Bus, Claim};
use crate::dma::IsolationUnit;
use crate::ids::IdGuard;
use crate::ops::{OpError, VdpaOps};
use crate::platform::BoxFuture;
use crate::wait::AsyncMutex;
use crate::{Features, Node, Platform};

pub use self::attachment::{AttachError, Attachment};
pub use self::registry::{Creator, RegisterError, Removal, Removed};
pub use self::type_name::type_name;
pub use self::vanished::Vanished;

use self::attachment::OwnerSlot;
use self::session::Session;

/// The bus of vDPA devices.
pub type VdpaBus = Bus<VdpaDevice>;

/// A vDPA device that belongs to a driver, with everything that changes it.
pub type VdpaClaim = Claim<VdpaDevice>;

/// What a device is made of.
#[derive(Clone)]
pub enum DeviceKind {
    /// A physical function, or the only function of a simpler device.
    Pf,
    /// A virtual function of a device with SR-IOV.
    Vf {
        /// The physical function.
        pf: Arc<Node>,
    },
    /// A part of a function that is lent by itself: an assignable device interface, or subfunction.
    /// Its requests are told from those of the others by their PASID.
    Adi {
        /// The function.
        owner: Arc<Node>,
        /// What its user calls it, among the parts of the function.
        user_id: u32,
    },
    /// A program.
    Software,
}

impl fmt::Debug for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pf => f.write_str("Pf"),
            Self::Vf { pf } => write!(f, "Vf of {}", pf.name()),
            Self::Adi { owner, user_id } => write!(f, "Adi {user_id} of {}", owner.name()),
            Self::Software => f.write_str("Software"),
        }
    }
}

/// What a device needs besides its operations.
#[derive(Clone, Debug)]
pub struct VdpaDeviceConfig {
    /// Below whom it hangs in the device tree.
    pub parent: Arc<Node>,
    /// Who issues its DMA requests, which may be somebody else than the parent.
    pub dma: Arc<IsolationUnit>,
    /// The kernel's services.
    pub platform: Arc<dyn Platform>,
    /// What it is made of.
    pub kind: DeviceKind,
    /// What it is called; without a name of its own it is the next `vdpaN`.
    pub name: Option<String>,
}

/// One row of the id table of a driver on the vDPA bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VdpaId {
    /// Devices of one virtio type.
    Type(u32),
    /// Any device.
    Any,
}

/// A device on the vDPA bus, to look at. What changes it is done through the [`VdpaClaim`] of its
/// driver.
///
/// After it has left the bus every operation answers [`OpError::Gone`].
pub struct VdpaDevice {
    // Fields are dropped in this order: the parent's data is freed before the id can be used again.
    ops: Box<dyn VdpaOps>,
    config: VdpaDeviceConfig,
    creator: Option<Creator>,
    node: Arc<Node>,
    presence: AtomicU8,
    workers_stopped: AtomicBool,
    /// One task at a time changes the state of the device.
    turn: AsyncMutex,
    session: Mutex<Session>,
    owner_slot: OwnerSlot,
    counters: Counters,
    _id: IdGuard,
}

/// What went wrong with a device, in numbers.
#[derive(Debug, Default)]
struct Counters {
    reset_timeouts: AtomicU64,
    left_ready: AtomicU64,
    leaked_queues: AtomicU64,
}

/// Whether a device is there.
mod presence {
    /// On the bus.
    pub(super) const PRESENT: u8 = 0;
    /// Being taken off the bus: it can only be brought to rest.
    pub(super) const LEAVING: u8 = 1;
    /// Off the bus, or its hardware is: no register may be touched.
    pub(super) const GONE: u8 = 2;
}

impl VdpaDevice {
    /// The device's place in the device tree.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Who issues its DMA requests.
    #[must_use]
    pub fn dma_device(&self) -> &Arc<Node> {
        self.config.dma.node()
    }

    /// The kernel's services.
    #[must_use]
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.config.platform
    }

    /// What it is made of.
    #[must_use]
    pub fn kind(&self) -> &DeviceKind {
        &self.config.kind
    }

    /// What management keeps with a device that it has made on demand.
    #[must_use]
    pub fn creator(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.creator.as_deref()
    }

    /// The virtio device type (VIRTIO 1.2, section 5).
    #[must_use]
    pub fn device_type(&self) -> u32 {
        self.ops.device_id()
    }

    /// Who made it.
    #[must_use]
    pub fn vendor_id(&self) -> u32 {
        self.ops.vendor_id()
    }

    /// The features that it offers.
    ///
    /// # Errors
    /// [`OpError::Gone`].
    pub fn device_features(&self) -> Result<Features, OpError> {
        self.present()?;
        Ok(self.ops.device_features())
    }

    /// The features in use; none before `FEATURES_OK`.
    ///
    /// # Errors
    /// [`OpError::Gone`].
    pub fn driver_features(&self) -> Result<Features, OpError> {
        self.present()?;
        let agreed = self
            .session
            .lock()
            .status()
            .contains(DeviceStatus::FEATURES_OK);
        Ok(if agreed {
            self.ops.driver_features()
        } else {
            Features::EMPTY
        })
    }

    /// The device status, as the device has it.
    ///
    /// # Errors
    /// [`OpError::Gone`].
    pub fn status(&self) -> Result<DeviceStatus, OpError> {
        self.present()?;
        self.ops.status()
    }

    fn present(&self) -> Result<(), OpError> {
        match self.presence.load(Ordering::Acquire) {
            presence::PRESENT => Ok(()),
            _ => Err(OpError::Gone),
        }
    }

    /// Resets the device. The caller has the turn and knows that the hardware is there.
    async fn reset_in_turn(&self) -> Result<(), OpError> {
        let result = self.in_time(self.ops.reset()).await;
        match result {
            Ok(()) => {
                self.mark_rings(None);
                self.check_all_down();
                self.owner_slot.at_rest(self);
            }
            // Hardware that does not answer any more uses no memory either.
            Err(OpError::Gone) => {
                self.session.lock().restart();
                self.owner_slot.at_rest(self);
            }
            Err(error) => {
                if error == OpError::Timeout {
                    self.counters.reset_timeouts.fetch_add(1, Ordering::Relaxed);
                }
                log::error!("{}: reset failed: {error}", self.node.path());
                self.session.lock().lose();
            }
        }
        result
    }

    /// After a reset no queue may be ready; one that is would be used with memory that is gone.
    fn check_all_down(&self) {
        let ready = self.session.lock().restart();
        for queue in ready
            .into_iter()
            .filter(|queue| self.ops.queue_ready(*queue) == Ok(true))
        {
            self.counters.left_ready.fetch_add(1, Ordering::Relaxed);
            log::error!(
                "{}: queue {queue} is still ready after a reset",
                self.node.path()
            );
        }
    }

    /// Whether the device did not come out of its last reset. Asking again soon would only take
    /// time.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.session.lock().is_lost()
    }

    /// Queues down, callbacks cleared, reset: what follows every consumer, whatever it left behind.
    fn bring_to_rest(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            if self.session.lock().is_fresh() {
                return;
            }
            let gone = self.presence.load(Ordering::Acquire) == presence::GONE;
            if !gone && !self.is_lost() {
                let ready = self.session.lock().ready_queues();
                for queue in ready {
                    // Hardware that can only be stopped by reset says so; the reset follows.
                    let _ = self.in_time(self.ops.set_queue_ready(queue, false)).await;
                }
            }
            for queue in 0..self.ops.queue_count() {
                self.ops.set_queue_callback(queue, None);
            }
            self.ops.set_config_callback(None);
            if gone {
                self.session.lock().restart();
                self.owner_slot.at_rest(self);
            } else if self.is_lost() || self.reset_in_turn().await.is_err() {
                self.owner_slot.abandon();
                let leaked = self.session.lock().abandon_queues();
                self.counters
                    .leaked_queues
                    .fetch_add(leaked, Ordering::Relaxed);
            }
        })
    }
}

impl fmt::Debug for VdpaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VdpaDevice")
            .field("node", &self.node)
            .field("kind", &self.config.kind)
            .field("type", &self.device_type())
            .finish_non_exhaustive()
    }
}
