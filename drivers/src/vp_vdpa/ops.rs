//! The operations of the vDPA device, as register accesses of the function.

use alloc::boxed::Box;

use vdpa::ops::{OpError, QueueAddress, QueueState};
use vdpa::platform::{BoxFuture, Callback};
use vdpa::{Features, VdpaOps};
use virtio::DeviceStatus;
use virtq::{Doorbell, NotifyFormat, RingFeatures, RingState};

use super::interrupts::{Callbacks, Interrupts};
use super::parent::Parent;

/// The strictest alignment of the parts of a queue (VIRTIO 1.2, 2.7).
const QUEUE_ALIGN: usize = 16;

impl Parent {
    /// Takes the vectors, once, for the callbacks that are set now.
    fn start_interrupts(&self) -> Result<(), OpError> {
        let mut state = self.state.lock();
        if state.interrupts.is_some() {
            return Ok(());
        }
        let queues = state
            .queues
            .iter()
            .map(|queue| queue.callback.clone())
            .collect();
        let callbacks = Callbacks {
            queues,
            config: state.config_callback.clone(),
        };
        let interrupts = Interrupts::start(&self.claim, &self.virtio, &self.platform, callbacks)?;
        state.interrupts = Some(interrupts);
        Ok(())
    }

    fn start_queue(&self, index: u16) -> Result<(), OpError> {
        let common = self.virtio.common();
        let mut state = self.state.lock();
        // After `DRIVER_OK` the queue has been reset alone, and its vector with it.
        if let Some(interrupts) = &state.interrupts {
            interrupts.tell_queue(common, index)?;
        }
        if let Some(queue) = state.queues.get_mut(usize::from(index)) {
            queue.was_ready = true;
        }
        let queue = common.queue(index);
        queue.enable();
        match queue.enabled() {
            1 => Ok(()),
            u16::MAX => Err(OpError::Gone),
            _ => Err(OpError::Broken),
        }
    }

    async fn stop_queue(&self, index: u16) -> Result<(), OpError> {
        if !self.queue_ready(index)? {
            return Ok(());
        }
        // Writing 0 to `queue_enable` is forbidden (VIRTIO 1.2, 4.1.4.3.2).
        if !self.driver_features().contains(virtio::F::RING_RESET) {
            return Err(OpError::Unsupported);
        }
        self.reset_queue(index).await
    }
}

impl VdpaOps for Parent {
    fn device_id(&self) -> u32 {
        self.device_type
    }

    fn vendor_id(&self) -> u32 {
        self.vendor
    }

    fn device_features(&self) -> Features {
        self.features
    }

    fn driver_features(&self) -> Features {
        self.state.lock().driver_features
    }

    fn set_driver_features(&self, features: Features) -> Result<(), OpError> {
        self.virtio.common().set_driver_features(features.bits());
        self.state.lock().driver_features = features;
        Ok(())
    }

    fn status(&self) -> Result<DeviceStatus, OpError> {
        self.virtio.common().status().ok_or(OpError::Gone)
    }

    fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            if status.contains(DeviceStatus::DRIVER_OK) {
                self.start_interrupts()?;
            }
            self.virtio.common().set_status(status);
            self.status().map(|_| ())
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(self.reset_device())
    }

    fn queue_count(&self) -> u16 {
        u16::try_from(self.queues.len()).expect("counted in 16 bits")
    }

    fn queue_size_max(&self, queue: u16) -> u16 {
        self.queues
            .get(usize::from(queue))
            .map_or(0, |queue| queue.size_max)
    }

    fn queue_align(&self) -> usize {
        QUEUE_ALIGN
    }

    fn set_queue_size(&self, queue: u16, size: u16) -> Result<(), OpError> {
        match self.virtio.common().queue(queue).set_size(size) {
            taken if taken == size => Ok(()),
            u16::MAX => Err(OpError::Gone),
            _ => Err(OpError::Invalid),
        }
    }

    fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError> {
        self.virtio.common().queue(queue).set_address(address);
        Ok(())
    }

    fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError> {
        if state == self.queue_state(queue)? {
            Ok(())
        } else {
            Err(OpError::Unsupported)
        }
    }

    /// The registers do not tell, so it is known only as long as the queue has never been ready.
    fn queue_state(&self, queue: u16) -> Result<QueueState, OpError> {
        let state = self.state.lock();
        match state.queues.get(usize::from(queue)) {
            Some(queue) if !queue.was_ready => {
                let packed = state.driver_features.contains(virtio::F::RING_PACKED);
                let features = RingFeatures {
                    packed,
                    ..RingFeatures::default()
                };
                Ok(RingState::start(features).into())
            }
            _ => Err(OpError::Unsupported),
        }
    }

    /// Takes effect with the next `DRIVER_OK`.
    fn set_queue_callback(&self, queue: u16, callback: Option<Callback>) {
        if let Some(queue) = self.state.lock().queues.get_mut(usize::from(queue)) {
            queue.callback = callback;
        }
    }

    fn set_queue_ready(&self, queue: u16, ready: bool) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            if ready {
                self.start_queue(queue)
            } else {
                self.stop_queue(queue).await
            }
        })
    }

    fn queue_ready(&self, queue: u16) -> Result<bool, OpError> {
        match self.virtio.common().queue(queue).enabled() {
            0 => Ok(false),
            1 => Ok(true),
            u16::MAX => Err(OpError::Gone),
            _ => Err(OpError::Broken),
        }
    }

    fn doorbell(&self, queue: u16) -> Result<Doorbell, OpError> {
        let facts = self
            .queues
            .get(usize::from(queue))
            .ok_or(OpError::OutOfRange)?;
        let with_data = self
            .driver_features()
            .contains(virtio::F::NOTIFICATION_DATA);
        let format = if with_data {
            NotifyFormat::IndexAndPlace
        } else {
            NotifyFormat::Index
        };
        let doorbell = self.virtio.doorbell(queue, facts.notify_off, format);
        doorbell.ok_or(OpError::Broken)
    }

    /// Takes effect with the next `DRIVER_OK`.
    fn set_config_callback(&self, callback: Option<Callback>) {
        self.state.lock().config_callback = callback;
    }

    fn config_size(&self) -> u32 {
        self.virtio.config_size()
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        self.status()?;
        self.virtio.read_config(offset, bytes)
    }

    fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        self.status()?;
        self.virtio.write_config(offset, bytes)
    }

    fn config_generation(&self) -> u32 {
        u32::from(self.virtio.common().config_generation())
    }
}
