//! The virtio bus, and a virtio device as its driver sees it.
//!
//! A driver negotiates features, creates queues, starts the device, and resets it before it lets
//! its queues go. It knows neither the transport nor who made the device.
//!
//! Source: VIRTIO 1.2, sections 2.1, 2.2 and 3.

mod bring_up;
mod inspect;
mod monitor;
mod queue;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use spin::Mutex;
use virtq::{DeviceHold, DmaAllocator, Event};

use crate::bus::{Bus, BusDevice};
use crate::device::VdpaDevice;
use crate::ids::IdGuard;
use crate::ops::OpError;
use crate::platform::BoxFuture;
use crate::{Features, Node, Platform};

#[cfg(feature = "testing")]
pub(crate) use self::queue::ring_features;
pub use self::queue::{Completion, VirtQueue};

pub(crate) use self::inspect::type_name;

use self::inspect::Inspector;
use self::monitor::Monitor;
use self::queue::QueueEntry;

/// The bus of virtio devices.
pub type VirtioBus = Bus<VirtioDevice>;

/// One row of the id table of a virtio driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioId {
    /// The device type (VIRTIO 1.2, section 5).
    pub device_type: virtio::Id,
}

/// A virtio device on the virtio bus.
///
/// Whoever holds a reference keeps the object, not the device: after the device has left the bus,
/// every operation answers [`OpError::Gone`] and every event has been raised.
pub struct VirtioDevice {
    vdpa: Arc<VdpaDevice>,
    node: Arc<Node>,
    device_type: virtio::Id,
    /// Whether the device may touch the memory of its queues.
    hold: Arc<DeviceHold>,
    config_event: Arc<Event>,
    condition: AtomicU8,
    /// How often the device has broken.
    failures: AtomicU64,
    state: Mutex<State>,
    _id: IdGuard,
}

#[derive(Default)]
struct State {
    features: Features,
    queues: Vec<QueueEntry>,
    monitor: Option<Arc<Monitor>>,
}

/// Whether a device can be worked with. A later condition replaces an earlier one.
mod condition {
    pub(super) const WORKING: u8 = 0;
    /// It needs a reset.
    pub(super) const BROKEN: u8 = 1;
    pub(super) const GONE: u8 = 2;
}

impl VirtioDevice {
    /// A device of the given type over a vDPA device, which it has to itself.
    pub(crate) fn new(vdpa: &Arc<VdpaDevice>, device_type: virtio::Id, id: IdGuard) -> Arc<Self> {
        let device = Arc::new(Self {
            vdpa: Arc::clone(vdpa),
            node: Node::child(vdpa.node(), &format!("virtio{}", id.number())),
            device_type,
            hold: DeviceHold::new(),
            config_event: Arc::default(),
            condition: AtomicU8::new(condition::WORKING),
            failures: AtomicU64::new(0),
            state: Mutex::default(),
            _id: id,
        });
        device
            .node
            .set_inspector(Some(Arc::new(Inspector(Arc::downgrade(&device)))));
        device
    }

    /// The device's place in the device tree.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The device type.
    #[must_use]
    pub fn device_type(&self) -> virtio::Id {
        self.device_type
    }

    /// Where memory for the device's queues and buffers comes from.
    #[must_use]
    pub fn dma(&self) -> Arc<dyn DmaAllocator> {
        self.vdpa.dma()
    }

    /// The kernel's services.
    #[must_use]
    pub fn platform(&self) -> &Arc<dyn Platform> {
        self.vdpa.platform()
    }

    /// The size of the configuration space in bytes; 0 once the device is gone.
    #[must_use]
    pub fn config_size(&self) -> u32 {
        self.vdpa.config_size().unwrap_or(0)
    }

    /// Reads from the configuration space; all bytes are of one moment.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if the range does not lie inside; [`OpError::Gone`]; whatever the device
    /// answers.
    pub fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        self.vdpa.read_config(offset, bytes)
    }

    /// Writes to the configuration space.
    ///
    /// # Errors
    /// As for [`VirtioDevice::read_config`].
    pub fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        self.vdpa.write_config(offset, bytes)
    }

    /// How many queues the device has.
    #[must_use]
    pub fn queue_count(&self) -> u16 {
        self.vdpa.queue_count()
    }

    /// Raised when the configuration has changed, when the device has broken, and when it is removed.
    #[must_use]
    pub fn config_event(&self) -> &Arc<Event> {
        &self.config_event
    }

    /// Whether the device can still be worked with. Cheap: it asks no register.
    ///
    /// # Errors
    /// [`OpError::Gone`] after removal; [`OpError::Broken`] after [`VirtioDevice::mark_broken`] or when
    /// the device has asked for a reset.
    pub fn check(&self) -> Result<(), OpError> {
        match self.condition.load(Ordering::Acquire) {
            condition::WORKING => Ok(()),
            condition::BROKEN => Err(OpError::Broken),
            _ => Err(OpError::Gone),
        }
    }

    /// Says that the device has violated its contract: it gets the status `FAILED`, and whoever waits
    /// for it is woken. Only a [`reset`](VirtioDevice::reset) makes it usable again.
    pub fn mark_broken(&self) {
        if self.worsen(condition::BROKEN) {
            log::error!(
                "{}: the device broke the protocol and is out of use",
                self.node.path()
            );
        }
    }

    /// Resets the device, after which it touches no memory. A driver calls it before it drops its queues:
    /// what is in a queue that is dropped earlier is lost, because the device might still write it.
    ///
    /// # Errors
    /// [`OpError::Gone`]; [`OpError::Timeout`]: the device may still use its memory, which stays allocated.
    pub async fn reset(&self) -> Result<(), OpError> {
        let result = self.vdpa.reset().await;
        let queues = {
            let mut state = self.state.lock();
            state.features = Features::EMPTY;
            if let Some(monitor) = state.monitor.take() {
                monitor.stop();
            }
            core::mem::take(&mut state.queues)
        };
        for queue in queues {
            queue.event.raise();
        }
        match result {
            Ok(()) => {
                self.hold.release();
                self.mend();
            }
            // Hardware that has been pulled out writes nothing.
            Err(OpError::Gone) => self.hold.release(),
            Err(_) => self.hold.hold(),
        }
        result
    }

    /// Goes to a worse condition, wakes everybody, and says whether this was news.
    fn worsen(&self, condition: u8) -> bool {
        let news = self.condition.fetch_max(condition, Ordering::AcqRel) < condition;
        if news && condition == condition::BROKEN {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        if news {
            let state = self.state.lock();
            for queue in &state.queues {
                queue.event.raise();
            }
            if let Some(monitor) = &state.monitor {
                monitor.raise();
            }
            drop(state);
            self.config_event.raise();
        }
        news
    }

    /// A reset has made a broken device usable; nothing brings back one that is gone.
    fn mend(&self) {
        let (broken, working) = (condition::BROKEN, condition::WORKING);
        // If it was not broken, nothing had to be mended.
        let _ =
            self.condition
                .compare_exchange(broken, working, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl BusDevice for VirtioDevice {
    type Id = VirtioId;

    fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn match_name(&self) -> &'static str {
        "virtio"
    }

    fn matches(&self, id: &VirtioId) -> bool {
        id.device_type == self.device_type
    }

    fn alias(&self) -> String {
        format!(
            "virtio:d{:08X}v{:08X}",
            u8::from(self.device_type),
            self.vdpa.vendor_id()
        )
    }

    fn quiesce(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // The driver may have tried in vain already.
            if !self.vdpa.is_lost() {
                // A failure has been logged and counted by the vDPA device, which also checks that no
                // queue is left ready.
                let _ = self.reset().await;
            }
        })
    }

    fn leaving(&self) {
        self.worsen(condition::GONE);
    }
}

impl Drop for VirtioDevice {
    fn drop(&mut self) {
        if let Some(monitor) = self.state.lock().monitor.take() {
            monitor.stop();
        }
    }
}

impl fmt::Debug for VirtioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioDevice")
            .field("node", &self.node)
            .field("type", &self.device_type)
            .finish_non_exhaustive()
    }
}
