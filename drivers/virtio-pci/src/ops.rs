//! The operations of the vDPA device, as register accesses of the function.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::ready;
use core::sync::atomic::Ordering;

use vdpa::ops::{
    Abilities, DirtyLog, NotificationArea, OpError, QueueAddress, QueueState as RingPlace,
    VendorCounter,
};
use vdpa::platform::{BoxFuture, Callback, InterruptMessage};
use vdpa::{Features, VdpaOps};
use virtio::DeviceStatus;
use virtq::{Doorbell, NotifyFormat};

use super::interrupts::{Callbacks, Interrupts, QueueCallback};
use super::parent::Parent;
use super::queue_state::Phase;

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
    /// Takes the vectors, once, for the callbacks that are set now.
    fn start_interrupts(&self) -> Result<(), OpError> {
        let mut state = self.state.lock();
        if state.interrupts.is_some() {
            return Ok(());
        }
        let queues = state.queues.iter().zip(&self.queues);
        let queues = queues.map(|(queue, facts)| {
            Some(QueueCallback {
                callback: queue.callback.clone()?,
                counts: Arc::clone(&facts.interrupts),
            })
        });
        let queues = queues.collect();
        let callbacks = Callbacks {
            queues,
            config: state.config_callback.clone(),
        };
        let interrupts = Interrupts::start(&self.claim, &self.virtio, &self.platform, callbacks)?;
        state.interrupts = Some(interrupts);
        Ok(())
    }

    /// What the device is told: what the driver accepts, and what was negotiated on its behalf.
    fn accepted(&self) -> Features {
        let features = self.driver_features();
        if self.can_suspend {
            features | virtio::F::SUSPEND.into()
        } else {
            features
        }
    }

    /// Enables the queues that have been started, each when everything else has been said about it,
    /// its vector included (VIRTIO 1.2, 4.1.4.3.2 and 4.1.5.1.3.2).
    fn start_queues(&self) -> Result<(), OpError> {
        self.start_interrupts()?;
        for index in 0..self.queue_count() {
            if self.edit(index, |queue| queue.phase) == Phase::Due {
                self.enable_queue(index)?;
            }
        }
        Ok(())
    }

    /// A device that has failed may have done so because it is there no more.
    fn unless_gone(&self, result: Result<(), OpError>) -> Result<(), OpError> {
        result.or_else(|error| self.raw_status().and(Err(error)))
    }
}

// SAFETY: the function is a virtio device (VIRTIO 1.2, 2.1 and 4.1), and keeps to its rings.
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
        if features != Features::EMPTY && !features.contains(self.demanded) {
            return Err(OpError::FeaturesRefused);
        }
        self.state.lock().driver_features = features;
        Ok(())
    }

    /// A suspended device shows `SUSPEND` instead of `DRIVER_OK`; for who looks from above it is
    /// started.
    fn status(&self) -> Result<DeviceStatus, OpError> {
        let mut status = self.raw_status()?;
        if status.contains(DeviceStatus::SUSPEND) {
            status.remove(DeviceStatus::SUSPEND);
            status.insert(DeviceStatus::DRIVER_OK);
        }
        Ok(status)
    }

    fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let now = self.raw_status()?;
            let common = self.virtio.common();
            if now.contains(DeviceStatus::SUSPEND) {
                // `DRIVER_OK` would resume it.
                let bits = status.difference(DeviceStatus::DRIVER_OK) | DeviceStatus::SUSPEND;
                common.set_status(bits);
                return self.status().map(|_| ());
            }
            // Several bits at once are meant one after another (VIRTIO 1.2, 3.1.1).
            let mut bits = now;
            for bit in STEPS
                .into_iter()
                .filter(|bit| status.contains(*bit) && !now.contains(*bit))
            {
                bits |= bit;
                if bit == DeviceStatus::FEATURES_OK {
                    common.set_driver_features(self.accepted(), self.offered);
                }
                if bit == DeviceStatus::DRIVER_OK {
                    self.unless_gone(self.start_queues())?;
                }
                common.set_status(bits);
            }
            if bits != now | status {
                common.set_status(now | status);
            }
            self.status().map(|_| ())
        })
    }

    fn abilities(&self) -> Abilities {
        let motion = Abilities::SUSPEND | Abilities::RESUME;
        match &self.states {
            Some(_) => motion | Abilities::QUEUE_STATE | Abilities::DIRTY_LOG,
            None if self.can_suspend => motion,
            None => Abilities::empty(),
        }
    }

    fn suspend(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async { self.unless_gone(self.suspend_device().await) })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async { self.unless_gone(self.resume_device().await) })
    }

    unsafe fn start_dirty_log(&self, log: DirtyLog) -> Result<(), OpError> {
        let states = self.states.as_ref().ok_or(OpError::Unsupported)?;
        self.unless_gone(states.start_log(log))
    }

    fn stop_dirty_log(&self) -> Result<(), OpError> {
        let states = self.states.as_ref().ok_or(OpError::Unsupported)?;
        self.unless_gone(states.stop_log())
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
            taken if taken == size => {}
            u16::MAX => return Err(OpError::Gone),
            _ => return Err(OpError::Invalid),
        }
        self.edit(queue, |queue| queue.size = Some(size));
        Ok(())
    }

    /// The registers of a queue that is enabled cannot be written, even while the device is
    /// suspended (VIRTIO 1.2, 4.1.4.3.2).
    unsafe fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError> {
        if self.is_enabled(queue)? {
            return Err(OpError::Unsupported);
        }
        self.virtio.common().queue(queue).set_address(address);
        self.edit(queue, |queue| queue.address = Some(address));
        Ok(())
    }

    fn set_queue_state(&self, queue: u16, state: RingPlace) -> Result<(), OpError> {
        self.set_position(queue, state)
    }

    /// Without registers that tell, it is known only as long as the queue has never been ready.
    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<RingPlace, OpError>> {
        Box::pin(ready(self.position(queue)))
    }

    /// Takes effect with the next `DRIVER_OK`.
    fn set_queue_callback(&self, queue: u16, callback: Option<Callback>) {
        self.edit(queue, |queue| queue.callback = callback);
    }

    fn set_queue_ready(&self, queue: u16, ready: bool) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let result = if ready {
                self.start_queue(queue)
            } else {
                self.stop_queue(queue).await
            };
            self.unless_gone(result)
        })
    }

    fn queue_ready(&self, queue: u16) -> Result<bool, OpError> {
        self.is_ready(queue)
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

    fn notification_area(&self, queue: u16) -> Option<NotificationArea> {
        let with_data = self
            .driver_features()
            .contains(virtio::F::NOTIFICATION_DATA);
        let facts = self.queues.get(usize::from(queue))?;
        facts.page.filter(|_| !with_data)
    }

    fn queue_interrupt(&self, queue: u16) -> Option<InterruptMessage> {
        let state = self.state.lock();
        state.interrupts.as_ref()?.message(queue)
    }

    /// How often the queue's callback was called. The function counts nothing that could be read.
    fn queue_statistics(&self, queue: u16) -> Result<Vec<VendorCounter>, OpError> {
        let facts = self.queues.get(usize::from(queue));
        let counts = &facts.ok_or(OpError::OutOfRange)?.interrupts;
        Ok(Vec::from([
            ("interrupts", counts.own.load(Ordering::Relaxed)),
            ("shared_interrupts", counts.shared.load(Ordering::Relaxed)),
        ]))
    }

    /// Takes effect with the next `DRIVER_OK`.
    fn set_config_callback(&self, callback: Option<Callback>) {
        self.state.lock().config_callback = callback;
    }

    fn config_size(&self) -> u32 {
        self.virtio.config_size()
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        self.config(offset, bytes)
    }

    /// Not before the features are settled (VIRTIO 1.2, 3.1.1).
    fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        if !self.raw_status()?.contains(DeviceStatus::FEATURES_OK) {
            return Err(OpError::WrongState);
        }
        self.virtio.write_config(offset, bytes)?;
        self.raw_status().map(drop)
    }

    fn config_generation(&self) -> u32 {
        u32::from(self.virtio.common().config_generation())
    }
}
