//! The requests about one queue.

use alloc::sync::Arc;

use spin::Mutex;
use vdpa::ops::{Abilities, NotificationArea, OpError, QueueAddress, QueueState};
use vdpa::platform::Callback;
use virtq::{Doorbell, DoorbellSwitch, Event};

use crate::VhostError;
use crate::worker_channel::Command;

use super::VhostHandle;

/// A doorbell can be given away in pages.
const PAGE: u64 = 4096;

impl VhostHandle {
    /// How many queues there are.
    #[must_use]
    pub fn queue_count(&self) -> u16 {
        self.client.device.queue_count()
    }

    /// The alignment that the parts of a queue need, in bytes, if above the specification's.
    #[must_use]
    pub fn vring_align(&self) -> usize {
        self.client.device.queue_align()
    }

    /// Whether the device tells where its queues stand and takes them up anywhere. If not, every
    /// queue starts afresh.
    #[must_use]
    pub fn keeps_vring_base(&self) -> bool {
        let abilities = self.client.device.abilities();
        abilities.contains(Abilities::QUEUE_STATE)
    }

    /// The largest size that every queue can have.
    ///
    /// # Errors
    /// [`VhostError::HungUp`].
    pub fn vring_num_max(&self) -> Result<u16, VhostError> {
        let device = &self.client.device;
        self.client.with(|_| {
            let mut smallest = u16::MAX;
            for queue in 0..device.queue_count() {
                smallest = smallest.min(device.queue_size_limits(queue)?.1);
            }
            Ok(smallest)
        })
    }

    /// How many entries the queue has, or can have at most as long as nobody has said.
    ///
    /// # Errors
    /// [`VhostError::NoSuchQueue`].
    pub fn vring_size(&self, queue: u16) -> Result<u16, VhostError> {
        let device = &self.client.device;
        self.client
            .with(|_| device.queue_size(queue).map_err(queue_error))
    }

    /// Sets how many entries the queue has.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::NoSuchQueue`]; [`VhostError::Invalid`], if the queue
    /// cannot have this size; [`VhostError::WrongState`], unless the device is between
    /// `FEATURES_OK` and `DRIVER_OK`, or takes late queues, and the queue is not enabled.
    pub fn set_vring_num(&self, queue: u16, size: u16) -> Result<(), VhostError> {
        let device = &self.client.device;
        self.client
            .with_vring(queue, |_| Ok(device.set_queue_size(queue, size)?))
    }

    /// Sets where the queue lies, in the addresses of its address space. Whether something is
    /// mapped there shows when the device looks.
    ///
    /// # Errors
    /// As for [`set_vring_num`](Self::set_vring_num), but that it is also possible while the device
    /// is suspended; [`VhostError::Invalid`], if a part is not aligned (VIRTIO 1.2, 2.7 and
    /// 2.8.10).
    pub fn set_vring_addr(&self, queue: u16, address: QueueAddress) -> Result<(), VhostError> {
        let device = &self.client.device;
        self.client.with_vring(queue, |state| {
            let packed = state.features.contains(virtio::F::RING_PACKED);
            let aligns = if packed { [16, 4, 4] } else { [16, 2, 4] };
            let parts = [address.descriptor, address.driver, address.device];
            if parts
                .iter()
                .zip(aligns)
                .any(|(part, align)| !part.0.is_multiple_of(align))
            {
                return Err(VhostError::Invalid);
            }
            // SAFETY: the device is attached to for a client: it reaches what the client has
            // mapped, memory that is open or that the client vouches for. Without isolation
            // somebody else has vouched for the client.
            Ok(unsafe { device.set_queue_address(queue, address) }?)
        })
    }

    /// Sets where the queue starts or, while the device is suspended, goes on.
    ///
    /// # Errors
    /// As for [`set_vring_addr`](Self::set_vring_addr); [`VhostError::Invalid`], if the state does
    /// not belong to the ring format or to the size; [`VhostError::Unsupported`], if the device can
    /// only start afresh.
    pub fn set_vring_base(&self, queue: u16, state: QueueState) -> Result<(), VhostError> {
        let device = &self.client.device;
        self.client
            .with_vring(queue, |_| Ok(device.set_queue_state(queue, state)?))
    }

    /// Where the queue stands.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::NoSuchQueue`]; [`VhostError::WrongState`], if it does
    /// not stand still: it is enabled and the device is not suspended; [`VhostError::Unsupported`],
    /// if the device does not tell.
    pub async fn vring_base(&self, queue: u16) -> Result<QueueState, VhostError> {
        self.client.with_vring(queue, |_| Ok(()))?;
        let base = Arc::new(Mutex::new(None));
        let command = Command::GetVringBase(queue, Arc::clone(&base));
        self.client.channel.carry_out(command).await?;
        let base = base.lock().take();
        base.ok_or(VhostError::HungUp)
    }

    /// Which event to raise when the device has used buffers of the queue; `None` for a queue that
    /// is polled. The interrupt itself raises it. It survives a reset.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::NoSuchQueue`]; [`VhostError::WrongState`], if the
    /// device can no longer be told.
    pub fn set_vring_call(&self, queue: u16, event: Option<Arc<Event>>) -> Result<(), VhostError> {
        let device = &self.client.device;
        self.client.with_vring(queue, |state| {
            // Before, the device does not know yet: it is told when the features have been agreed
            // on.
            if state.has_agreed() {
                device.set_queue_callback(queue, event.clone().map(Callback::event))?;
            }
            state.vring(queue).call = event;
            Ok(())
        })
    }

    /// Which event to raise when the device has broken or is taken away.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::NoSuchQueue`].
    pub fn set_vring_err(&self, queue: u16, event: Option<Arc<Event>>) -> Result<(), VhostError> {
        self.client.with_vring(queue, |state| {
            state.vring(queue).err = event;
            Ok(())
        })
    }

    /// Which event the client raises to kick the queue. The shim listens to it while the device
    /// runs and the queue is enabled; what was raised earlier counts then. A client that rings the
    /// [`doorbell`](Self::doorbell) needs none.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::NoSuchQueue`]; [`VhostError::Unsupported`] with
    /// `NOTIFICATION_DATA`, which an event cannot carry.
    pub async fn set_vring_kick(
        &self,
        queue: u16,
        event: Option<Arc<Event>>,
    ) -> Result<(), VhostError> {
        self.client.with_vring(queue, |state| {
            let carries = !state.features.contains(virtio::F::NOTIFICATION_DATA);
            (carries || event.is_none())
                .then_some(())
                .ok_or(VhostError::Unsupported)
        })?;
        let command = Command::SetVringKick(queue, event);
        self.client.channel.carry_out(command).await
    }

    /// Lets the device use the queue. One that is enabled stays so.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::NoSuchQueue`]; [`VhostError::WrongState`], if the
    /// queue is not set up completely, or this is not the time; whatever the device answers.
    pub async fn enable_vring(&self, queue: u16) -> Result<(), VhostError> {
        self.client.with_vring(queue, |_| Ok(()))?;
        self.client
            .channel
            .carry_out(Command::EnableVring(queue))
            .await
    }

    /// Makes the device stop using the queue, and waits until it has.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::NoSuchQueue`]; [`VhostError::Unsupported`], if the
    /// device can stop a queue by a reset alone; whatever else it answers.
    pub async fn disable_vring(&self, queue: u16) -> Result<(), VhostError> {
        self.client.with_vring(queue, |_| Ok(()))?;
        self.client
            .channel
            .carry_out(Command::DisableVring(queue))
            .await
    }

    /// How the client notifies the queue without asking anybody. It depends on the features that
    /// have been agreed on, and leads nowhere after a reset or the close.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::NoSuchQueue`]; [`VhostError::WrongState`] before
    /// `FEATURES_OK`; whatever the device answers.
    pub fn doorbell(&self, queue: u16) -> Result<Doorbell, VhostError> {
        let device = &self.client.device;
        self.client.with_vring(queue, |state| {
            if !state.has_agreed() {
                return Err(VhostError::WrongState);
            }
            if let Some(switch) = &state.vring(queue).doorbell {
                return Ok(Doorbell::switched(switch));
            }
            let switch = DoorbellSwitch::new(&device.doorbell(queue)?);
            let doorbell = Doorbell::switched(&switch);
            state.vring(queue).doorbell = Some(switch);
            Ok(doorbell)
        })
    }

    /// Where the doorbell of the queue lies, for a client that has an address space of its own to
    /// map it into: whole pages with nothing else in them. `None`, if the doorbell does not stand
    /// alone.
    ///
    /// # Errors
    /// [`VhostError::NoOwner`]; [`VhostError::NoSuchQueue`].
    pub fn notification_area(&self, queue: u16) -> Result<Option<NotificationArea>, VhostError> {
        let device = &self.client.device;
        self.client.with_vring(queue, |_| {
            let area = device.notification_area(queue)?;
            let whole_pages = |area: &NotificationArea| {
                area.base.0.is_multiple_of(PAGE) && area.len > 0 && area.len.is_multiple_of(PAGE)
            };
            Ok(area.filter(whole_pages))
        })
    }
}

pub(super) fn queue_error(error: OpError) -> VhostError {
    match error {
        OpError::OutOfRange => VhostError::NoSuchQueue,
        other => other.into(),
    }
}
