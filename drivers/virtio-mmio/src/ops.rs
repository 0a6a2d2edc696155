//! The operations of the vDPA device, as register accesses.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::ready;
use core::sync::atomic::Ordering;

use vdpa::ops::{OpError, QueueAddress, QueueState as RingPlace, VendorCounter};
use vdpa::platform::{BoxFuture, Callback};
use vdpa::{Features, VdpaOps};
use virtio::DeviceStatus;
use virtq::{Doorbell, NotifyFormat, RingFeatures, RingState};

use super::interrupts::{Callbacks, Interrupts};
use super::parent::{Operation, Parent, QueueState};

/// The steps of the initialisation, in their order (VIRTIO 1.2, 3.1.1).
const STEPS: [DeviceStatus; 4] = [
    DeviceStatus::ACKNOWLEDGE,
    DeviceStatus::DRIVER,
    DeviceStatus::FEATURES_OK,
    DeviceStatus::DRIVER_OK,
];

/// The strictest alignment of the parts of a queue (VIRTIO 1.2, 2.7).
const QUEUE_ALIGN: usize = 16;

impl Parent {
    /// Connects the interrupt, once, for the callbacks that are set now.
    fn start_interrupts(&self) {
        let mut state = self.state.lock();
        if state.interrupts.is_some() {
            return;
        }
        let queues = state.queues.iter().zip(&self.queues);
        let queues = queues.filter_map(|(queue, facts)| {
            Some((queue.callback.clone()?, Arc::clone(&facts.interrupts)))
        });
        let callbacks = Callbacks {
            queues: queues.collect(),
            config: state.config_callback.clone(),
        };
        let interrupts = Interrupts::start(&self.registers, self.line(), &self.platform, callbacks);
        state.interrupts = Some(interrupts);
    }

    /// VIRTIO 1.2, 4.2.3.2: the queue is not in use, then its size, its places, and ready last.
    fn start_queue(&self, index: u16) -> Result<(), OpError> {
        let place = self.edit(index, |queue| (queue.size, queue.address));
        let (Some(size), Some(address)) = place else {
            return Err(OpError::WrongState);
        };
        let queue = self.registers.queue(index);
        match queue.ready() {
            0 => {}
            u32::MAX => return Err(OpError::Gone),
            _ => return Ok(()),
        }
        queue.set_size(size);
        queue.set_address(address);
        queue.set_ready();
        let ready = queue.ready();
        drop(queue);
        self.edit(index, |queue| queue.has_run = true);
        match ready {
            1 => Ok(()),
            u32::MAX => Err(OpError::Gone),
            _ => Err(OpError::Broken),
        }
    }

    /// Looks at what is known of a queue, or changes it. A queue that does not exist is a new one.
    fn edit<T>(&self, index: u16, change: impl FnOnce(&mut QueueState) -> T) -> T {
        let mut state = self.state.lock();
        match state.queues.get_mut(usize::from(index)) {
            Some(queue) => change(queue),
            None => change(&mut QueueState::default()),
        }
    }

    /// Where a queue starts that is new.
    fn start(&self) -> RingPlace {
        let features =
            RingFeatures::NONE.with_packed(self.driver_features().contains(virtio::F::RING_PACKED));
        RingState::start(features).into()
    }

    /// A device that has failed may have done so because it is there no more.
    fn unless_gone(&self, result: Result<(), OpError>) -> Result<(), OpError> {
        result.or_else(|error| self.registers.status().and(Err(error)))
    }
}

// SAFETY: the place is one of a virtio device (VIRTIO 1.2, 2.1 and 4.2), which keeps to its rings.
unsafe impl VdpaOps for Parent {
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

    /// The device is told with `FEATURES_OK`.
    fn set_driver_features(&self, features: Features) -> Result<(), OpError> {
        if features != Features::EMPTY && !features.contains(virtio::F::VERSION_1) {
            return Err(OpError::FeaturesRefused);
        }
        self.state.lock().driver_features = features;
        Ok(())
    }

    fn status(&self) -> Result<DeviceStatus, OpError> {
        self.read_status()
    }

    fn set_status(&self, status: DeviceStatus) -> Operation<'_> {
        Box::pin(async move {
            let now = self.read_status()?;
            // Several bits at once are meant one after another (VIRTIO 1.2, 3.1.1).
            let mut bits = now;
            for bit in STEPS {
                if !status.contains(bit) || now.contains(bit) {
                    continue;
                }
                bits |= bit;
                if bit == DeviceStatus::FEATURES_OK {
                    self.registers
                        .set_driver_features(self.driver_features(), self.features);
                }
                if bit == DeviceStatus::DRIVER_OK {
                    self.start_interrupts();
                }
                self.write_status(bits)?;
            }
            if bits != now | status {
                self.write_status(now | status)?;
            }
            self.read_status().map(drop)
        })
    }

    fn reset(&self) -> Operation<'_> {
        self.reset_device()
    }

    fn queue_count(&self) -> u16 {
        u16::try_from(self.queues.len()).expect("counted in 16 bits")
    }

    fn queue_size_max(&self, queue: u16) -> u16 {
        let facts = self.queues.get(usize::from(queue));
        facts.map_or(0, |queue| queue.size_max)
    }

    fn queue_align(&self) -> usize {
        QUEUE_ALIGN
    }

    fn set_queue_size(&self, queue: u16, size: u16) -> Result<(), OpError> {
        if size > self.queue_size_max(queue) {
            return Err(OpError::Invalid);
        }
        self.edit(queue, |queue| queue.size = Some(size));
        Ok(())
    }

    unsafe fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError> {
        if self.queue_ready(queue)? {
            return Err(OpError::Unsupported);
        }
        self.edit(queue, |queue| queue.address = Some(address));
        Ok(())
    }

    fn set_queue_state(&self, queue: u16, state: RingPlace) -> Result<(), OpError> {
        if self.queue_ready(queue)? || state != self.start() {
            return Err(OpError::Unsupported);
        }
        Ok(())
    }

    /// Known as long as the queue has never been ready.
    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<RingPlace, OpError>> {
        let has_run = self.edit(queue, |queue| queue.has_run);
        Box::pin(ready(if has_run {
            Err(OpError::Unsupported)
        } else {
            Ok(self.start())
        }))
    }

    /// Takes effect with the next `DRIVER_OK`.
    fn set_queue_callback(&self, queue: u16, callback: Option<Callback>) {
        self.edit(queue, |queue| queue.callback = callback);
    }

    fn set_queue_ready(&self, queue: u16, ready: bool) -> Operation<'_> {
        Box::pin(async move {
            let result = if ready {
                self.start_queue(queue)
            } else if self.queue_ready(queue)? {
                self.reset_queue(queue).await
            } else {
                Ok(())
            };
            self.unless_gone(result)
        })
    }

    fn queue_ready(&self, queue: u16) -> Result<bool, OpError> {
        match self.registers.queue(queue).ready() {
            0 => Ok(false),
            1 => Ok(true),
            u32::MAX => Err(OpError::Gone),
            _ => Err(OpError::Broken),
        }
    }

    fn doorbell(&self, queue: u16) -> Result<Doorbell, OpError> {
        let features = self.driver_features();
        let format = if features.contains(virtio::F::NOTIFICATION_DATA) {
            NotifyFormat::IndexAndPlace
        } else {
            NotifyFormat::WideIndex
        };
        let doorbell = self.registers.doorbell(queue, format);
        doorbell.ok_or(OpError::Broken)
    }

    /// How often the queue's callback was called: the interrupt is one of all queues.
    fn queue_statistics(&self, queue: u16) -> Result<Vec<VendorCounter>, OpError> {
        let facts = self.queues.get(usize::from(queue));
        let facts = facts.ok_or(OpError::OutOfRange)?;
        let calls = facts.interrupts.load(Ordering::Relaxed);
        Ok(Vec::from([("shared_interrupts", calls)]))
    }

    /// Takes effect with the next `DRIVER_OK`.
    fn set_config_callback(&self, callback: Option<Callback>) {
        self.state.lock().config_callback = callback;
    }

    fn config_size(&self) -> u32 {
        self.registers.config_size()
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        self.registers.read_config(offset, bytes)?;
        self.registers.status().map(drop)
    }

    fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        self.registers.write_config(offset, bytes)?;
        self.registers.status().map(drop)
    }

    fn config_generation(&self) -> u32 {
        self.registers.config_generation()
    }
}
