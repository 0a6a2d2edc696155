//! A queue of a virtio device: its ring, its doorbell and its interrupt in one.

use alloc::sync::Arc;

use virtq::{
    Chain, CreateError, Doorbell, Event, Notify, Queue, QueueConfig, RingFeatures, RingState,
    Statistics,
};

use crate::Features;
use crate::ops::{OpError, QueueAddress};
use crate::platform::Callback;

use super::VirtioDevice;

/// How a driver learns that a queue has used buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The device raises [`VirtQueue::event`].
    Interrupt,
    /// The driver looks; the event is raised only when the device breaks or goes.
    Polled,
}

/// A queue that a driver works with. From here on no call goes through the bus.
#[derive(Debug)]
pub struct VirtQueue<T: Chain> {
    /// The ring.
    pub ring: Queue<T>,
    /// How the device is notified.
    pub doorbell: Doorbell,
    /// Raised when the device has used buffers, has broken, has been reset or is removed.
    pub event: Arc<Event>,
    /// The index in the device.
    pub index: u16,
}

impl<T: Chain> VirtQueue<T> {
    /// Makes everything that was added available, and notifies the device if it wants to know.
    pub fn kick(&mut self) {
        if self.ring.publish() == Notify::Needed {
            self.doorbell.ring(self.ring.place());
        }
    }
}

/// What the device keeps about a queue of its driver.
pub(super) struct QueueEntry {
    pub(super) index: u16,
    pub(super) name: &'static str,
    pub(super) size: u16,
    pub(super) event: Arc<Event>,
    pub(super) statistics: Arc<Statistics>,
}

impl VirtioDevice {
    /// Creates the queue `index` with at most `max_size` entries, a power of two, or fewer if the device
    /// takes no more. `name` says what it is for. Possible between negotiation and start.
    ///
    /// If it fails, the device has been reset and every queue is down.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue; [`OpError::WrongState`], if this is not the time
    /// or the queue exists; [`OpError::OutOfResources`]; whatever the device answers.
    pub async fn create_queue<T: Chain>(
        &self,
        index: u16,
        name: &'static str,
        max_size: u16,
        completion: Completion,
    ) -> Result<VirtQueue<T>, OpError> {
        let result = self.try_create(index, name, max_size, completion).await;
        if result.is_err() {
            // The reason of the failure is what counts; a failed reset has been logged and counted.
            let _ = self.reset().await;
        }
        result
    }

    async fn try_create<T: Chain>(
        &self,
        index: u16,
        name: &'static str,
        max_size: u16,
        completion: Completion,
    ) -> Result<VirtQueue<T>, OpError> {
        self.check()?;
        let size = self.queue_size(index, max_size)?;
        let features = self.state.lock().features;
        let config = QueueConfig {
            size,
            align: self.vdpa.queue_align(),
            features: ring_features(features),
        };
        let event = Arc::<Event>::default();
        let callback: Option<Callback> = match completion {
            Completion::Interrupt => {
                let event = Arc::clone(&event);
                Some(Arc::new(move || event.raise()))
            }
            Completion::Polled => None,
        };
        self.vdpa.set_queue_callback(index, callback)?;
        self.vdpa.set_queue_size(index, size)?;
        let mut ring = Queue::new(&config, &self.dma(), &self.hold)?;
        if completion == Completion::Polled {
            ring.disable_interrupts();
        }
        let addresses = ring.addresses();
        let address = QueueAddress {
            descriptor: addresses.descriptor,
            driver: addresses.driver,
            device: addresses.device,
        };
        self.vdpa.set_queue_address(index, address)?;
        self.vdpa
            .set_queue_state(index, RingState::start(config.features).into())?;
        let doorbell = self.vdpa.doorbell(index)?;
        self.vdpa.start_queue(index).await?;
        let entry = QueueEntry {
            index,
            name,
            size,
            event: Arc::clone(&event),
            statistics: ring.statistics(),
        };
        self.state.lock().queues.push(entry);
        // A removal since the check has not raised this event.
        self.check()?;
        Ok(VirtQueue {
            ring,
            doorbell,
            event,
            index,
        })
    }

    /// The largest power of two that the driver wants and the device takes.
    fn queue_size(&self, index: u16, max_size: u16) -> Result<u16, OpError> {
        let (smallest, largest) = self.vdpa.queue_size_limits(index)?;
        let size = max_size
            .min(largest)
            .checked_ilog2()
            .map(|exponent| 1 << exponent);
        size.filter(|size| *size >= smallest)
            .ok_or(OpError::OutOfRange)
    }
}

/// What of the negotiated features changes the ring.
pub(crate) fn ring_features(features: Features) -> RingFeatures {
    RingFeatures {
        packed: features.contains(virtio::F::RING_PACKED),
        event_idx: features.contains(virtio::F::EVENT_IDX),
        indirect: features.contains(virtio::F::INDIRECT_DESC),
        in_order: features.contains(virtio::F::IN_ORDER),
    }
}

impl From<CreateError> for OpError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::BadSize | CreateError::BadAlignment | CreateError::BadState => {
                Self::Invalid
            }
            CreateError::Memory(_) => Self::OutOfResources,
        }
    }
}
