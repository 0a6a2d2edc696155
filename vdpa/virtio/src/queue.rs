//! A queue of a virtio device: its ring, its doorbell and its interrupt in one.

use alloc::boxed::Box;
use alloc::sync::Arc;

use vdpa::Features;
use vdpa::features::ring_features;
use vdpa::ops::{OpError, QueueAddress, QueueState};
use vdpa::platform::BoxFuture;
use virtq::{
    Chain, CreateError, Doorbell, DoorbellSwitch, Event, Notify, Queue, QueueConfig, Requests,
    RingAddresses, RingState, Statistics, UsedWatch,
};

use super::{QueueSetup, Transport, VirtioClaim, VirtioDevice};

/// How a driver learns that a queue has used buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The device raises [`VirtQueue::event`].
    Interrupt,
    /// The driver looks; the event is raised only when the device breaks, is moved or goes.
    Polled,
}

/// A queue that a driver works with. From here on no call goes through the bus.
///
/// A doorbell rings for its own queue alone:
///
/// ```compile_fail,E0616
/// # use virtio_bus::VirtQueue;
/// fn attack(queue: &mut VirtQueue<virtq::Readable>, other: virtq::Doorbell) {
///     queue.doorbell = other;
/// }
/// ```
#[derive(Debug)]
pub struct VirtQueue<T: Chain> {
    /// The ring.
    pub ring: Queue<T>,
    /// How the device is notified. It follows the device when it is moved.
    doorbell: Doorbell,
    /// Raised when the device has used buffers, has broken, has been moved or reset, or is removed.
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

    /// The queue for requests that are shared by many, and the event.
    #[must_use]
    pub fn into_requests(self) -> (Requests<T>, Arc<Event>) {
        (Requests::new(self.ring, self.doorbell), self.event)
    }
}

/// What the device keeps about a queue of its driver: enough to set it up again elsewhere.
#[derive(Clone)]
pub(super) struct QueueEntry {
    pub(super) index: u16,
    pub(super) name: &'static str,
    pub(super) size: u16,
    pub(super) completion: Completion,
    pub(super) address: QueueAddress,
    pub(super) event: Arc<Event>,
    pub(super) switch: Arc<DoorbellSwitch>,
    /// Where the switch leads while no device may be notified.
    parking: Doorbell,
    /// What the device has used, where the ring tells.
    pub(super) used: Option<Arc<UsedWatch>>,
    pub(super) statistics: Arc<Statistics>,
}

impl QueueEntry {
    /// Tells a device of the queue, and lets it use the queue from `state` on.
    pub(super) async fn set_up(
        &self,
        transport: &Arc<dyn Transport>,
        state: QueueState,
    ) -> Result<(), OpError> {
        let event = match self.completion {
            Completion::Interrupt => Some(Arc::clone(&self.event)),
            Completion::Polled => None,
        };
        let setup = QueueSetup {
            size: self.size,
            address: self.address,
            state,
            event,
        };
        // SAFETY: the ring is that of a `Queue` of the device's memory, held until a reset.
        unsafe { transport.start_queue(self.index, setup) }.await
    }

    /// From now on notifications reach nobody.
    pub(super) fn park(&self) {
        self.switch.switch(&self.parking);
    }
}

impl VirtioClaim {
    /// Creates the queue `index` with at most `max_size` entries, a power of two, or fewer if the
    /// device takes no more. `name` says what it is for. Possible between negotiation and start.
    ///
    /// If it fails, the device has been reset and every queue is down.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`], if there is no such queue; [`OpError::WrongState`], if this is not
    /// the time or the queue exists; [`OpError::OutOfResources`]; whatever the device answers.
    pub async fn create_queue<T: Chain>(
        &self,
        index: u16,
        name: &'static str,
        max_size: u16,
        completion: Completion,
    ) -> Result<VirtQueue<T>, OpError> {
        let mut ring = None;
        let mut make_ring = |config: &QueueConfig| {
            let ring = ring.insert(Queue::new(config, &self.dma(), &self.hold)?);
            if completion == Completion::Polled {
                ring.disable_interrupts();
            }
            Ok(RingParts {
                addresses: ring.addresses(),
                used: ring.used_watch(),
                statistics: ring.statistics(),
            })
        };
        let made = self.set_up_queue(index, name, max_size, completion, &mut make_ring);
        let (doorbell, event) = made.await?;
        Ok(VirtQueue {
            ring: ring.ok_or(OpError::WrongState)?,
            doorbell,
            event,
            index,
        })
    }

    /// What a queue takes besides its ring: there once, whatever the ring holds.
    fn set_up_queue<'a>(
        &'a self,
        index: u16,
        name: &'static str,
        max_size: u16,
        completion: Completion,
        make_ring: MakeRing<'a>,
    ) -> BoxFuture<'a, Result<(Doorbell, Arc<Event>), OpError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            self.usable()?;
            let result = self
                .try_set_up(index, name, max_size, completion, make_ring)
                .await;
            if result.is_err() {
                // The reason of the failure is what counts; a failed reset has been logged and
                // counted.
                let _ = self.reset_in_turn().await;
            }
            result
        })
    }
}

/// Makes a ring and says what the device is told of it.
type MakeRing<'a> = &'a mut (dyn FnMut(&QueueConfig) -> Result<RingParts, CreateError> + Send);

/// What there is to know of a ring, whatever it holds.
struct RingParts {
    addresses: RingAddresses,
    used: Option<UsedWatch>,
    statistics: Arc<Statistics>,
}

impl VirtioDevice {
    async fn try_set_up(
        &self,
        index: u16,
        name: &'static str,
        max_size: u16,
        completion: Completion,
        make_ring: MakeRing<'_>,
    ) -> Result<(Doorbell, Arc<Event>), OpError> {
        self.check()?;
        let transport = self.transport()?;
        let size = fitting_size(&transport, index, max_size)?;
        let features = self.state.lock().features;
        let ring = make_ring(&QueueConfig {
            size,
            align: transport.info().queue_align,
            features: ring_features(features),
        })?;
        let switch = DoorbellSwitch::new(&transport.doorbell(index)?);
        let entry = QueueEntry {
            index,
            name,
            size,
            completion,
            address: QueueAddress {
                descriptor: ring.addresses.descriptor,
                driver: ring.addresses.driver,
                device: ring.addresses.device,
            },
            event: Arc::default(),
            switch: Arc::clone(&switch),
            parking: Doorbell::event(Arc::default()),
            used: ring.used.map(Arc::new),
            statistics: ring.statistics,
        };
        let event = Arc::clone(&entry.event);
        entry.set_up(&transport, start(features)).await?;
        self.state.lock().queues.push(entry);
        // A removal since the check has not raised this event.
        self.check()?;
        Ok((Doorbell::switched(&switch), event))
    }
}

/// The largest power of two that the driver wants and the device takes.
fn fitting_size(transport: &Arc<dyn Transport>, index: u16, max_size: u16) -> Result<u16, OpError> {
    let (smallest, largest) = transport.info().queue_size_limits(index)?;
    let size = max_size
        .min(largest)
        .checked_ilog2()
        .map(|exponent| 1 << exponent);
    size.filter(|size| *size >= smallest)
        .ok_or(OpError::OutOfRange)
}

/// Where every new queue starts.
pub(super) fn start(features: Features) -> QueueState {
    RingState::start(ring_features(features)).into()
}
