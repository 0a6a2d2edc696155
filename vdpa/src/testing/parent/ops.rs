//! The bus's end of the fake device.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;

use virtio::DeviceStatus;
use virtq::{Doorbell, RingState};

use crate::Features;
use crate::ops::{OpError, QueueAddress, QueueState, VdpaOps};
use crate::platform::{BoxFuture, Callback};
use crate::virtio::ring_features;

use super::{FakeParent, Resets};

/// The operations. Dropping them is the parent's `free`.
pub(super) struct Ops(pub(super) Arc<FakeParent>);

impl Drop for Ops {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.frees += 1;
        let act = state.on_free.take();
        drop(state);
        if let Some(act) = act {
            act();
        }
    }
}

impl VdpaOps for Ops {
    fn device_id(&self) -> u32 {
        self.0.device_type
    }

    fn vendor_id(&self) -> u32 {
        0xfa4e
    }

    fn device_features(&self) -> Features {
        self.0.state.lock().offered
    }

    fn driver_features(&self) -> Features {
        self.0.state.lock().accepted
    }

    fn set_driver_features(&self, features: Features) -> Result<(), OpError> {
        self.0.step("set_driver_features")?;
        self.0.state.lock().accepted = features;
        Ok(())
    }

    fn status(&self) -> Result<DeviceStatus, OpError> {
        Ok(self.0.status())
    }

    fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            self.0.step(format!("set_status({:#x})", status.bits()))?;
            let mut state = self.0.state.lock();
            state.status = status;
            if state.refuses_features {
                state.status.remove(DeviceStatus::FEATURES_OK);
            }
            Ok(())
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            self.0.step("reset")?;
            if self.0.state.lock().resets == Resets::Never {
                self.0.wait_in_vain().await;
                return Err(OpError::Timeout);
            }
            let mut state = self.0.state.lock();
            state.status = DeviceStatus::empty();
            state.accepted = Features::EMPTY;
            state.config_callback = None;
            for queue in &mut state.queues {
                (queue.size, queue.address, queue.ring, queue.callback) = (0, None, None, None);
            }
            Ok(())
        })
    }

    fn stop_workers(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.0.state.lock().note("stop_workers") })
    }

    fn queue_count(&self) -> u16 {
        u16::try_from(self.0.state.lock().queues.len()).expect("a test has few queues")
    }

    fn queue_size_max(&self, queue: u16) -> u16 {
        self.0.state.lock().queues[usize::from(queue)].size_max
    }

    fn queue_size_min(&self) -> u16 {
        2
    }

    fn queue_align(&self) -> usize {
        1
    }

    fn set_queue_size(&self, queue: u16, size: u16) -> Result<(), OpError> {
        self.0.step(format!("set_queue_size({queue}, {size})"))?;
        self.0.state.lock().queues[usize::from(queue)].size = size;
        Ok(())
    }

    fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError> {
        self.0.step(format!("set_queue_address({queue})"))?;
        self.0.state.lock().queues[usize::from(queue)].address = Some(address);
        Ok(())
    }

    fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError> {
        self.0.step(format!("set_queue_state({queue})"))?;
        let features = ring_features(self.0.state.lock().accepted);
        if state == RingState::start(features).into() {
            Ok(())
        } else {
            Err(OpError::Unsupported)
        }
    }

    fn queue_state(&self, _queue: u16) -> Result<QueueState, OpError> {
        Err(OpError::Unsupported)
    }

    fn set_queue_callback(&self, queue: u16, callback: Option<Callback>) {
        let mut state = self.0.state.lock();
        if callback.is_none() {
            state.note(format!("clear_queue_callback({queue})"));
        }
        state.queues[usize::from(queue)].callback = callback;
    }

    fn set_queue_ready(&self, queue: u16, ready: bool) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            self.0.step(format!("set_queue_ready({queue}, {ready})"))?;
            let mut state = self.0.state.lock();
            if !ready && state.resets == Resets::Never {
                return Err(OpError::Unsupported);
            }
            let ring = if ready {
                state.ring(self.0.heap(), queue)
            } else {
                None
            };
            state.queues[usize::from(queue)].ring = ring;
            Ok(())
        })
    }

    fn queue_ready(&self, queue: u16) -> Result<bool, OpError> {
        Ok(self.0.is_ready(queue))
    }

    fn doorbell(&self, queue: u16) -> Result<Doorbell, OpError> {
        self.0.step(format!("doorbell({queue})"))?;
        Ok(Doorbell::event(self.0.kick(queue)))
    }

    fn set_config_callback(&self, callback: Option<Callback>) {
        let mut state = self.0.state.lock();
        if callback.is_none() {
            state.note("clear_config_callback");
        }
        state.config_callback = callback;
    }

    fn config_size(&self) -> u32 {
        u32::try_from(self.0.state.lock().config.len()).expect("a test's configuration is short")
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        self.0
            .step(format!("read_config({offset}, {})", bytes.len()))?;
        let state = self.0.state.lock();
        let start = offset as usize;
        bytes.copy_from_slice(&state.config[start..start + bytes.len()]);
        Ok(())
    }

    fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        self.0
            .step(format!("write_config({offset}, {})", bytes.len()))?;
        let mut state = self.0.state.lock();
        let start = offset as usize;
        state.config[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn config_generation(&self) -> u32 {
        self.0.state.lock().generation
    }
}
