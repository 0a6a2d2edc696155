//! The bus's end of the fake device.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;

use alloc::vec::Vec;

use virtio::DeviceStatus;
use virtq::{Doorbell, RingState};

use crate::Features;
use crate::features::ring_features;
use crate::iotlb::{Iotlb, IovaRange, Permission};
use crate::ops::{
    Abilities, Backing, DirtyLog, DmaModel, IncrementalMap, NotificationArea, OpError,
    QueueAddress, QueueState, VdpaOps, VendorCounter, WholeMap,
};
use crate::platform::{BoxFuture, Callback, PhysAddr};

use super::ring::Ring;
use super::{FakeParent, Resets, Translation};

/// The operations. Dropping them is the parent's `free`.
pub(super) struct Ops(pub(super) Arc<FakeParent>);

impl Ops {
    fn tells_state(&self) -> bool {
        self.0.traits.abilities.contains(Abilities::QUEUE_STATE)
    }

    fn start(&self) -> QueueState {
        RingState::start(ring_features(self.0.accepted())).into()
    }
}

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

impl IncrementalMap for Ops {
    fn map(
        &self,
        space: u16,
        range: IovaRange,
        permission: Permission,
        backing: Backing,
    ) -> Result<(), OpError> {
        let (first, last) = (range.first(), range.last());
        self.0
            .step(format!("map({space}, {first:#x}..={last:#x})"))?;
        self.0.maps.map(space, range, permission, backing)
    }

    fn unmap(&self, space: u16, range: IovaRange) -> Result<(), OpError> {
        let (first, last) = (range.first(), range.last());
        self.0
            .step(format!("unmap({space}, {first:#x}..={last:#x})"))?;
        self.0.maps.unmap(space, range)
    }
}

impl WholeMap for Ops {
    fn set_map(&self, space: u16, table: &Iotlb<Backing>) -> Result<(), OpError> {
        self.0
            .step(format!("set_map({space}, {} mappings)", table.len()))?;
        self.0.maps.replace(space, table);
        Ok(())
    }
}

// SAFETY: it touches what it is told to, and no other memory.
unsafe impl VdpaOps for Ops {
    fn device_id(&self) -> u32 {
        self.0.device_type
    }

    fn vendor_id(&self) -> u32 {
        0xfa4e
    }

    fn dma_model(&self) -> DmaModel<'_> {
        match self.0.traits.translation {
            Translation::Platform => DmaModel::Platform,
            Translation::Incremental => DmaModel::Incremental(self),
            Translation::Whole => DmaModel::Whole(self),
        }
    }

    fn abilities(&self) -> Abilities {
        self.0.traits.abilities
    }

    fn iova_range(&self) -> IovaRange {
        self.0.traits.iova_range
    }

    fn address_space_count(&self) -> u16 {
        self.0.traits.spaces
    }

    fn group_count(&self) -> u16 {
        self.0.traits.group_count
    }

    fn queue_group(&self, queue: u16) -> u16 {
        let groups = &self.0.traits.groups;
        groups.get(usize::from(queue)).copied().unwrap_or(0)
    }

    fn descriptor_group(&self, _queue: u16) -> Option<u16> {
        self.0.traits.descriptor_group
    }

    fn set_group_address_space(
        &self,
        group: u16,
        space: u16,
    ) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let what = format!("set_group_address_space({group}, {space})");
            self.0.slow_step(what).await?;
            if self.0.traits.spaces == 1 {
                return Err(OpError::Unsupported);
            }
            let moved = &mut self.0.state.lock().group_spaces;
            moved.retain(|moved| moved.0 != group);
            moved.push((group, space));
            Ok(())
        })
    }

    fn reset_map(&self, space: u16) -> Result<(), OpError> {
        self.0.step(format!("reset_map({space})"))?;
        self.0.maps.clear(space);
        Ok(())
    }

    fn settle(&self, space: u16) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move { self.0.slow_step(format!("settle({space})")).await })
    }

    /// What the test has popped and not completed is put back.
    fn suspend(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            self.0.slow_step("suspend").await?;
            let mut state = self.0.state.lock();
            state.suspended = true;
            for queue in &mut state.queues {
                if let Some(ring) = &queue.ring {
                    queue.state = Some(ring.state());
                }
            }
            Ok(())
        })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            self.0.slow_step("resume").await?;
            let mut state = self.0.state.lock();
            if !core::mem::take(&mut state.suspended) {
                return Ok(());
            }
            for index in (0..).take(state.queues.len()) {
                if state.queues[usize::from(index)].ring.is_some() {
                    let ring = state.ring(self.0.heap(), index);
                    state.queues[usize::from(index)].ring = ring;
                }
            }
            // What was kicked meanwhile is looked at.
            for queue in state.queues.iter().filter(|queue| queue.ring.is_some()) {
                queue.kick.raise();
            }
            Ok(())
        })
    }

    unsafe fn start_dirty_log(&self, log: DirtyLog) -> Result<(), OpError> {
        let DirtyLog { base, len } = log;
        self.0.step(format!("start_dirty_log({base:#x}, {len})"))?;
        self.0.state.lock().dirty_log = Some(log);
        Ok(())
    }

    fn stop_dirty_log(&self) -> Result<(), OpError> {
        self.0.step("stop_dirty_log")?;
        self.0.state.lock().dirty_log = None;
        Ok(())
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
        if self.0.state.lock().vanished {
            return Err(OpError::Gone);
        }
        Ok(self.0.status())
    }

    fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let what = format!("set_status({:#x})", status.bits());
            self.0.slow_step(what).await?;
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
            self.0.slow_step("reset").await?;
            if self.0.state.lock().resets == Resets::Never {
                self.0.wait_in_vain().await;
                return Err(OpError::Timeout);
            }
            self.0.state.lock().reset();
            if !self.0.traits.abilities.contains(Abilities::PERSISTENT_MAPS) {
                self.0.maps.clear_all();
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

    unsafe fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError> {
        self.0.step(format!("set_queue_address({queue})"))?;
        let mut fake = self.0.state.lock();
        let setup = &mut fake.queues[usize::from(queue)];
        setup.address = Some(address);
        setup.state = setup.ring.as_ref().map(Ring::state).or(setup.state);
        fake.move_ring(self.0.heap(), queue);
        Ok(())
    }

    fn set_queue_state(&self, queue: u16, state: QueueState) -> Result<(), OpError> {
        self.0.step(format!("set_queue_state({queue})"))?;
        let start = self.start();
        if !self.tells_state() && state != start {
            return Err(OpError::Unsupported);
        }
        let mut fake = self.0.state.lock();
        fake.queues[usize::from(queue)].state = Some(state);
        fake.move_ring(self.0.heap(), queue);
        Ok(())
    }

    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>> {
        Box::pin(async move {
            self.0.slow_step(format!("queue_state({queue})")).await?;
            if !self.tells_state() {
                return Err(OpError::Unsupported);
            }
            let start = self.start();
            let state = self.0.state.lock();
            let queue = &state.queues[usize::from(queue)];
            let stands = queue.ring.as_ref().map(Ring::state);
            Ok(stands.or(queue.state).unwrap_or(start))
        })
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
            let what = format!("set_queue_ready({queue}, {ready})");
            self.0.slow_step(what).await?;
            let mut state = self.0.state.lock();
            if !ready && state.resets == Resets::Never {
                return Err(OpError::Unsupported);
            }
            let ring = if ready {
                state.ring(self.0.heap(), queue)
            } else {
                None
            };
            let tells_state = self.tells_state();
            let queue = &mut state.queues[usize::from(queue)];
            if !ready {
                let stood = queue.ring.as_ref().map(Ring::state);
                queue.state = stood.or(queue.state).filter(|_| tells_state);
            }
            queue.ring = ring;
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

    fn notification_area(&self, queue: u16) -> Option<NotificationArea> {
        let NotificationArea {
            base: PhysAddr(first),
            len,
        } = self.0.traits.doorbells?;
        let base = PhysAddr(first + u64::from(queue) * len);
        Some(NotificationArea { base, len })
    }

    fn queue_statistics(&self, queue: u16) -> Result<Vec<VendorCounter>, OpError> {
        self.0.step(format!("queue_statistics({queue})"))?;
        let state = self.0.state.lock();
        let queue = &state.queues[usize::from(queue)];
        Ok(Vec::from([
            ("completed", queue.completed),
            ("interrupts", queue.interrupts),
        ]))
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
        if !state.keeps_config {
            state.config[start..start + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn config_generation(&self) -> u32 {
        self.0.state.lock().generation
    }
}
