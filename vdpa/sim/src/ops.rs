//! The operations of a simulated device, for the vDPA bus.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::ready;

use vdpa::Features;
use vdpa::features::ring_features;
use vdpa::iotlb::IovaRange;
use vdpa::ops::{
    Abilities, DirtyLog, DmaModel, OpError, QueueAddress, QueueState, VdpaOps, VendorCounter,
};
use vdpa::platform::{BoxFuture, Callback};
use virtio::DeviceStatus;
use virtq::{Doorbell, RingState};

use super::Flavour;
use super::device::Device;
use super::model::{CONFIG_MAX, Model};

/// The bus's end of a device.
pub(super) struct Ops<M: Model>(pub(super) Arc<Device<M>>);

impl<M: Model> Drop for Ops<M> {
    /// A device that never came to the bus has a worker, too.
    fn drop(&mut self) {
        self.0.stop();
    }
}

// SAFETY: queues reach memory through the address spaces alone, and end with the worker's reset.
unsafe impl<M: Model> VdpaOps for Ops<M> {
    fn device_id(&self) -> u32 {
        self.0.shape.device_id
    }

    /// As in `vdpa_sim`: nobody has made it.
    fn vendor_id(&self) -> u32 {
        0
    }

    fn dma_model(&self) -> DmaModel<'_> {
        match self.0.flavour {
            Flavour::Incremental => DmaModel::Incremental(&self.0.spaces),
            Flavour::Whole => DmaModel::Whole(&self.0.spaces),
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities::SUSPEND
            | Abilities::RESUME
            | Abilities::ENABLE_AFTER_DRIVER_OK
            | Abilities::QUEUE_STATE
            | Abilities::PERSISTENT_MAPS
            | Abilities::DIRTY_LOG
    }

    fn iova_range(&self) -> IovaRange {
        self.0.iova_range
    }

    fn address_space_count(&self) -> u16 {
        self.0.spaces.count()
    }

    fn group_count(&self) -> u16 {
        self.0.shape.groups
    }

    fn queue_group(&self, queue: u16) -> u16 {
        self.0.with(|engine| engine.group(queue))
    }

    fn set_group_address_space(
        &self,
        group: u16,
        space: u16,
    ) -> BoxFuture<'_, Result<(), OpError>> {
        let Device { spaces, faults, .. } = &*self.0;
        let moved = self
            .0
            .with(|engine| engine.move_group(group, space, spaces, faults));
        Box::pin(ready(moved))
    }

    fn reset_map(&self, space: u16) -> Result<(), OpError> {
        self.0.spaces.clear(space)
    }

    fn settle(&self, _space: u16) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async {
            self.0.settle();
            Ok(())
        })
    }

    fn suspend(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async {
            self.0.suspend().await;
            Ok(())
        })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async {
            self.0.with(|engine| engine.resume());
            // What was kicked meanwhile is looked at now.
            self.0.bell.ring();
            Ok(())
        })
    }

    unsafe fn start_dirty_log(&self, log: DirtyLog) -> Result<(), OpError> {
        self.0.set_log(Some(log));
        Ok(())
    }

    fn stop_dirty_log(&self) -> Result<(), OpError> {
        self.0.set_log(None);
        Ok(())
    }

    fn device_features(&self) -> Features {
        self.0.offered
    }

    fn driver_features(&self) -> Features {
        self.0.with(|engine| engine.features)
    }

    fn set_driver_features(&self, features: Features) -> Result<(), OpError> {
        self.0.with(|engine| engine.set_features(features))
    }

    fn status(&self) -> Result<DeviceStatus, OpError> {
        Ok(self.0.with(|engine| engine.status))
    }

    fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            self.0.with(|engine| engine.set_status(status));
            self.0.bell.ring();
            Ok(())
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(self.0.reset())
    }

    fn stop_workers(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.0.stop();
            self.0.join().await;
        })
    }

    fn queue_count(&self) -> u16 {
        self.0.shape.queues
    }

    fn queue_size_max(&self, queue: u16) -> u16 {
        if queue < self.0.shape.queues {
            self.0.queue_size
        } else {
            0
        }
    }

    fn queue_align(&self) -> usize {
        1
    }

    fn set_queue_size(&self, queue: u16, size: u16) -> Result<(), OpError> {
        let Device { spaces, faults, .. } = &*self.0;
        self.0
            .with(|engine| engine.set_up(queue, spaces, faults, |setup| setup.size = size))
    }

    unsafe fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError> {
        let Device { spaces, faults, .. } = &*self.0;
        self.0.with(|engine| {
            engine.set_up(queue, spaces, faults, |setup| {
                setup.address = Some(address);
            })
        })
    }

    fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError> {
        let Device { spaces, faults, .. } = &*self.0;
        self.0.with(|engine| {
            let packed = ring_features(engine.features).packed;
            let state = state.at_rest().ok_or(OpError::Invalid)?;
            if packed != matches!(state, RingState::Packed { .. }) {
                return Err(OpError::Invalid);
            }
            engine.set_up(queue, spaces, faults, |setup| setup.state = Some(state))
        })
    }

    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>> {
        let state = self.0.with(|engine| engine.queue_state(queue));
        Box::pin(ready(state))
    }

    fn set_queue_callback(&self, queue: u16, callback: Option<Callback>) {
        self.0
            .with(|engine| engine.setups[usize::from(queue)].callback = callback);
    }

    fn set_queue_ready(&self, queue: u16, ready: bool) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let Device { spaces, faults, .. } = &*self.0;
            self.0.with_signals(&mut Vec::new(), |engine, signals| {
                match (engine.is_ready(queue), ready) {
                    (false, true) => engine.open(queue, spaces, faults),
                    (true, false) => {
                        engine.close(queue, signals);
                        Ok(())
                    }
                    _ => Ok(()),
                }
            })?;
            self.0.bell.ring();
            Ok(())
        })
    }

    fn queue_ready(&self, queue: u16) -> Result<bool, OpError> {
        Ok(self.0.with(|engine| engine.is_ready(queue)))
    }

    fn doorbell(&self, _queue: u16) -> Result<Doorbell, OpError> {
        Ok(self.0.bell.doorbell())
    }

    fn queue_statistics(&self, queue: u16) -> Result<Vec<VendorCounter>, OpError> {
        Ok(self.0.with(|engine| {
            let mut counters = engine.model.statistics(queue, engine.features);
            counters.push(("dma faults", engine.dma_faults(queue)));
            counters
        }))
    }

    fn set_config_callback(&self, callback: Option<Callback>) {
        self.0.with(|engine| engine.config_callback = callback);
    }

    fn config_size(&self) -> u32 {
        self.0.shape.config_size
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        let mut config = [0; CONFIG_MAX];
        self.0.with(|engine| engine.model.read_config(&mut config));
        let start = usize::try_from(offset).map_err(|_| OpError::OutOfRange)?;
        let field = config.get(start..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(field.ok_or(OpError::OutOfRange)?);
        Ok(())
    }

    fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        self.0.with(|engine| {
            for (offset, byte) in (offset..).zip(bytes) {
                engine.model.write_config(offset, *byte, engine.features);
            }
        });
        Ok(())
    }

    fn config_generation(&self) -> u32 {
        self.0.with(|engine| engine.generation)
    }
}
