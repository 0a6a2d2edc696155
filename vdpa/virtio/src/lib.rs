//! The virtio bus, and a virtio device as its driver sees it.
//!
//! A driver has the [`VirtioClaim`] of its device. It negotiates features, creates queues, starts
//! the device, and resets it before it lets its queues go. It knows neither the [`Transport`] nor
//! who made the device, and both can change while it works ([`VirtioDevice::move_to`]).
//!
//! Source: VIRTIO 1.2, sections 2.1, 2.2 and 3.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod bring_up;
mod claim;
mod fixed;
mod inspect;
mod monitor;
mod moving;
#[cfg(feature = "suspend")]
mod power;
mod queue;
mod quiesce;
mod registry;
mod rewind;
mod status;
mod transport;
pub mod virtio_vdpa;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use spin::Mutex;
use vdpa::bus::{AddError, Bus, BusDevice, ByBus};
use vdpa::dma::DmaSpace;
use vdpa::ids::{IdGuard, OutOfIds};
use vdpa::ops::{OpError, QueueState};
use vdpa::platform::BoxFuture;
use vdpa::wait::AsyncMutex;
use vdpa::{Features, Node, Platform};
use virtq::{DeviceHold, DmaAllocator, Event};

pub use self::claim::VirtioClaim;
pub use self::queue::{Completion, VirtQueue};
pub use self::registry::Registry;
pub use self::rewind::Rewind;
pub use self::transport::{DeviceInfo, QueueSetup, Transport};
pub use vdpa::moving::MoveError;

use self::fixed::FixedConfig;
use self::inspect::Inspector;
use self::monitor::Monitor;
use self::queue::QueueEntry;
use self::rewind::Rewinding;

/// The bus of virtio devices.
pub type VirtioBus = Bus<VirtioDevice>;

/// One row of the id table of a virtio driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioId {
    /// The device type (VIRTIO 1.2, section 5).
    pub device_type: virtio::Id,
}

/// Why a virtio device cannot be made of what a transport leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The device type is 0.
    #[error("its virtio device type is 0")]
    NoType,
    /// The specification knows no such device type.
    #[error("its virtio device type is unknown")]
    UnknownType,
    /// Every number is taken.
    #[error(transparent)]
    OutOfIds(#[from] OutOfIds),
    /// The bus does not take it.
    #[error("the virtio bus does not take it: {0}")]
    Bus(#[from] AddError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] OpError),
}

/// A virtio device on the virtio bus, to look at. What changes it is done through the
/// [`VirtioClaim`] of its driver.
///
/// A reference keeps the object, not the device: after the device has left the bus,
/// every operation answers [`OpError::Gone`] and every event has been raised.
pub struct VirtioDevice {
    /// The way to the device. It changes when the device is moved, and ends when the device has
    /// left its bus: a holder that refers to it keeps nobody below from being used by others.
    transport: Mutex<Option<Arc<dyn Transport>>>,
    /// The memory of the queues and buffers.
    memory: Memory,
    platform: Arc<dyn Platform>,
    node: Arc<Node>,
    device_type: virtio::Id,
    /// Whether the device may touch the memory of its queues.
    hold: Arc<DeviceHold>,
    config_event: Arc<Event>,
    condition: AtomicU8,
    /// How often the device has broken.
    failures: AtomicU64,
    /// One task at a time takes the device up or brings it to rest.
    turn: AsyncMutex,
    state: Mutex<State>,
    rewinding: Rewinding,
    bus: Weak<VirtioBus>,
    _id: IdGuard,
}

#[derive(Default)]
struct State {
    features: Features,
    fixed: FixedConfig,
    queues: Vec<QueueEntry>,
    monitor: Option<Arc<Monitor>>,
    /// Where the queues go on, while the device is suspended.
    resting: Option<Vec<QueueState>>,
}

/// Memory for the queues and buffers of one device.
pub struct Memory {
    /// What is mapped for the device.
    pub space: Arc<DmaSpace>,
    /// Who hands it out.
    pub allocator: Arc<dyn DmaAllocator>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("space", &self.space)
            .finish_non_exhaustive()
    }
}

/// Whether a device can be worked with. A later condition replaces an earlier one.
mod condition {
    pub(super) const WORKING: u8 = 0;
    /// It needs a reset.
    pub(super) const BROKEN: u8 = 1;
    pub(super) const GONE: u8 = 2;
}

impl VirtioDevice {
    /// Makes a device of what the transport leads to, which it has to itself, and puts it on the
    /// bus. Its memory has been attached to the transport.
    ///
    /// # Errors
    /// [`CreateError`]: there is no device. The transport and the memory are as they were.
    ///
    /// # Safety
    /// What the memory's allocator hands out, the device finds at the addresses that it says.
    pub unsafe fn create(
        bus: &Arc<VirtioBus>,
        transport: Arc<dyn Transport>,
        memory: Memory,
    ) -> BoxFuture<'_, Result<Arc<Self>, CreateError>> {
        Box::pin(Self::join_bus(bus, transport, memory))
    }

    async fn join_bus(
        bus: &Arc<VirtioBus>,
        transport: Arc<dyn Transport>,
        memory: Memory,
    ) -> Result<Arc<Self>, CreateError> {
        let info = transport.info();
        let device_type = known_type(info.device_type)?;
        let id = bus.allocate_id()?;
        let device = Arc::new(Self {
            memory,
            platform: Arc::clone(&info.platform),
            node: Node::child(&info.node, &format!("virtio{}", id.number())),
            transport: Mutex::new(Some(transport)),
            device_type,
            hold: DeviceHold::new(),
            config_event: Arc::default(),
            condition: AtomicU8::new(condition::WORKING),
            failures: AtomicU64::new(0),
            turn: AsyncMutex::default(),
            state: Mutex::default(),
            rewinding: Rewinding::default(),
            bus: Arc::downgrade(bus),
            _id: id,
        });
        device
            .node
            .set_inspector(Some(Arc::new(Inspector(Arc::downgrade(&device)))));
        bus.add_device(Arc::clone(&device)).await?;
        Ok(device)
    }

    /// Whether the device is over this transport, once nobody moves it any more.
    pub async fn is_over(&self, transport: &dyn Transport) -> bool {
        let _turn = self.turn.lock().await;
        let own = self.transport();
        own.is_ok_and(|own| Arc::ptr_eq(&own.info().node, &transport.info().node))
    }

    /// Takes the device off its bus, and its memory from what the transport leads to, which is
    /// given back.
    pub fn withdraw(self: &Arc<Self>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(bus) = self.bus() {
                bus.remove_device(self).await;
            }
            let _turn = self.turn.lock().await;
            let transport = self.transport.lock().take();
            self.memory.space.detach();
            if let Some(transport) = transport {
                transport.close().await;
            }
        })
    }

    /// Stops the device because the system goes down. One that does not reset has been logged.
    pub(crate) async fn shut_down(&self) {
        let _turn = self.turn.lock().await;
        let _ = self.reset_in_turn().await;
    }

    /// The bus that it is on, as long as somebody has it.
    #[must_use]
    pub fn bus(&self) -> Option<Arc<VirtioBus>> {
        self.bus.upgrade()
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
        Arc::clone(&self.memory.allocator)
    }

    /// The kernel's services.
    #[must_use]
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    /// The size of the configuration space in bytes; 0 once the device is gone.
    #[must_use]
    pub fn config_size(&self) -> u32 {
        self.transport().map_or(0, |way| way.info().config_size)
    }

    /// Reads from the configuration space; all bytes are of one moment.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if the range does not lie inside; [`OpError::Gone`]; whatever the
    /// device answers.
    pub fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        self.transport()?.read_config(offset, bytes)
    }

    /// How many queues the device has; 0 once it is gone.
    #[must_use]
    pub fn queue_count(&self) -> u16 {
        self.transport().map_or(0, |way| way.info().queue_count())
    }

    /// Raised when the configuration has changed, when the device has broken, and when it is
    /// removed.
    #[must_use]
    pub fn config_event(&self) -> &Arc<Event> {
        &self.config_event
    }

    /// Whether the device can still be worked with. Cheap: it asks no register.
    ///
    /// # Errors
    /// [`OpError::Gone`] after removal; [`OpError::Broken`] after [`VirtioClaim::mark_broken`] or
    /// when the device has asked for a reset.
    pub fn check(&self) -> Result<(), OpError> {
        match self.condition.load(Ordering::Acquire) {
            condition::WORKING => Ok(()),
            condition::BROKEN => Err(OpError::Broken),
            _ => Err(OpError::Gone),
        }
    }

    /// Does as if the device had violated its contract, without its claim.
    #[cfg(feature = "testing")]
    pub fn break_down(&self) {
        self.give_up();
    }

    /// The device has violated its contract, or does not come back.
    pub(crate) fn give_up(&self) {
        if self.worsen(condition::BROKEN) {
            log::error!(
                "{}: the device broke the protocol and is out of use",
                self.node.path()
            );
        }
    }

    pub(crate) async fn reset_in_turn(&self) -> Result<(), OpError> {
        let result = self.transport()?.reset().await;
        let queues = {
            let mut state = self.state.lock();
            state.features = Features::EMPTY;
            state.resting = None;
            if let Some(monitor) = state.monitor.take() {
                monitor.stop();
            }
            core::mem::take(&mut state.queues)
        };
        for queue in queues {
            // The register may be another device's next.
            queue.park();
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

    /// The way to the device, as it is now.
    pub(crate) fn transport(&self) -> Result<Arc<dyn Transport>, OpError> {
        self.transport.lock().clone().ok_or(OpError::Gone)
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
                monitor.event().raise();
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

/// The device type, if it is one of the specification's (VIRTIO 1.2, section 5).
fn known_type(device_type: u32) -> Result<virtio::Id, CreateError> {
    match u8::try_from(device_type).map(virtio::Id::from) {
        Ok(virtio::Id::Reserved) => Err(CreateError::NoType),
        Ok(virtio::Id::Unknown(_)) | Err(_) => Err(CreateError::UnknownType),
        Ok(known) => Ok(known),
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
            self.transport().map_or(0, |way| way.info().vendor_id)
        )
    }

    fn quiesce(&self, _: ByBus<Self>) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // The driver may have tried in vain already.
            if self.transport().is_ok_and(|way| !way.is_lost()) {
                // The vDPA device also checks that no queue is left ready.
                self.shut_down().await;
            }
        })
    }

    fn leaving(&self, _: ByBus<Self>) {
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
