//! The operations of a device, for the vDPA bus.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::ready;
use core::mem;

use vdpa::Features;
use vdpa::features::ring_features;
use vdpa::iotlb::IovaRange;
use vdpa::ops::{Abilities, DmaModel, OpError, QueueAddress, QueueState, VdpaOps, VendorCounter};
use vdpa::platform::{BoxFuture, Callback};
use vduse_protocol::{Outcome, PackedState, ProtocolFeatures, RawState, Request, Response};
use virtio::DeviceStatus;
use virtq::{Doorbell, RingState};

use super::device::{Device, required};
use super::error::AttachError;
use super::state::{Motion, State};
use super::vduse_queue::VduseQueue;

/// The addresses of a device: above what a platform uses for its memory, so that a platform's
/// address is never valid by accident.
const IOVA_FIRST: u64 = 1 << 40;
const IOVA_LEN: u64 = 1 << 40;

/// The bus's end of a device.
pub(super) struct Ops(Arc<Device>);

impl Ops {
    /// Takes a device for the bus.
    pub(super) fn attach(device: Arc<Device>) -> Result<Self, AttachError> {
        device.attach()?;
        Ok(Self(device))
    }

    fn has(&self, feature: ProtocolFeatures) -> bool {
        self.0.options.features.contains(feature)
    }

    /// Asks for something that a task which keeps to the protocol never refuses.
    async fn insist(&self, request: Request) -> Result<(), OpError> {
        match self.0.ask(request).await?.outcome {
            Outcome::Done => Ok(()),
            Outcome::Failed => Err(self.lied("its task refuses what it must not")),
        }
    }

    fn lied(&self, how: &str) -> OpError {
        self.0.break_down(how);
        OpError::Broken
    }
}

impl Drop for Ops {
    fn drop(&mut self) {
        self.0.detach();
    }
}

/// Whether the device has been reset since: then what was asked for is no longer wanted.
fn check_resets(state: &State, resets: u64) -> Result<(), OpError> {
    if state.broken {
        Err(OpError::Broken)
    } else if state.resets == resets {
        Ok(())
    } else {
        Err(OpError::WrongState)
    }
}

// SAFETY: only queues in use reach memory, through the address spaces alone, by the addresses
// that the driver has set; and none is after a reset.
unsafe impl VdpaOps for Ops {
    fn device_id(&self) -> u32 {
        self.0.device_id()
    }

    fn vendor_id(&self) -> u32 {
        self.0.vendor_id
    }

    fn dma_model(&self) -> DmaModel<'_> {
        DmaModel::Incremental(&self.0.spaces)
    }

    fn abilities(&self) -> Abilities {
        let mut abilities = Abilities::QUEUE_STATE | Abilities::PERSISTENT_MAPS;
        if self.has(ProtocolFeatures::SUSPEND) {
            abilities |= Abilities::SUSPEND | Abilities::RESUME;
        }
        if self.has(ProtocolFeatures::QUEUE_READY) {
            abilities |= Abilities::ENABLE_AFTER_DRIVER_OK;
        }
        abilities
    }

    fn iova_range(&self) -> IovaRange {
        let range = IovaRange::new(IOVA_FIRST, IOVA_LEN);
        range.expect("neither empty nor at the end of all addresses")
    }

    fn address_space_count(&self) -> u16 {
        self.0.spaces.count()
    }

    fn group_count(&self) -> u16 {
        let groups = self.0.with(|state| state.groups.len());
        u16::try_from(groups).expect("made from 16 bits")
    }

    fn queue_group(&self, queue: u16) -> u16 {
        self.0
            .with(|state| state.virtqueues[usize::from(queue)].group)
    }

    fn set_group_address_space(
        &self,
        group: u16,
        space: u16,
    ) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let device = &self.0;
            let resets = device.with(|state| state.resets);
            self.insist(Request::SetGroupAddressSpace {
                group: group.into(),
                address_space: space.into(),
            })
            .await?;
            device.with(|state| {
                check_resets(state, resets)?;
                let place = state.groups.get_mut(usize::from(group));
                *place.ok_or(OpError::OutOfRange)? = space;
                for queue in 0..state.virtqueues.len() {
                    if state.virtqueues[queue].group == group {
                        let queue = u16::try_from(queue).map_err(|_| OpError::OutOfRange)?;
                        state.set_up(queue, &device.spaces, |_| ())?;
                    }
                }
                Ok(())
            })
        })
    }

    fn reset_map(&self, space: u16) -> Result<(), OpError> {
        self.0.spaces.clear(space)
    }

    /// Memory that was taken away is out of reach as soon as the queues look at their translations,
    /// whatever the task does; it is told for what it may remember.
    fn settle(&self, space: u16) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let started = self.0.with(|state| {
                let active = state
                    .virtqueues
                    .iter_mut()
                    .filter_map(|virtqueue| virtqueue.active.as_mut());
                active.for_each(VduseQueue::refresh);
                state.is_started() && state.opened
            });
            if let Some(range) = self.0.spaces.take_withdrawn(space)
                && started
            {
                // That it does not answer breaks the device, and does not keep the memory.
                let _ = self
                    .insist(Request::UpdateIotlb {
                        start: range.first(),
                        last: range.last(),
                        address_space: space.into(),
                    })
                    .await;
            }
            Ok(())
        })
    }

    fn suspend(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            if !self.has(ProtocolFeatures::SUSPEND) {
                return Err(OpError::Unsupported);
            }
            let device = &self.0;
            let (motion, resets) = device.with(|state| {
                let motion = state.motion;
                if motion == Motion::Running {
                    state.motion = Motion::Suspending;
                }
                (motion, state.resets)
            });
            if motion == Motion::Suspended {
                return Ok(());
            }
            let answer = device.ask(Request::Suspend).await?;
            let at_rest = device.with_signals(|state, signals| {
                check_resets(state, resets)?;
                if answer.outcome == Outcome::Failed {
                    state.motion = Motion::Running;
                    return Err(OpError::WrongState);
                }
                let at_rest = state.come_to_rest(signals);
                state.motion = Motion::Suspended;
                Ok(at_rest)
            });
            let at_rest = at_rest.inspect_err(|_| device.event.raise())?;
            device.quiet().await;
            if at_rest {
                Ok(())
            } else {
                Err(self.lied("its task keeps requests although it is suspended"))
            }
        })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            if !self.has(ProtocolFeatures::SUSPEND) {
                return Err(OpError::Unsupported);
            }
            let device = &self.0;
            let (status, resets) = device.with(|state| (state.status, state.resets));
            self.insist(Request::SetStatus(status.bits())).await?;
            device.with_signals(|state, signals| {
                check_resets(state, resets)?;
                state.motion = Motion::Running;
                if mem::take(&mut state.config_changed) {
                    signals.add(state.config_callback.as_ref());
                }
                Ok::<_, OpError>(())
            })?;
            // What was kicked meanwhile is looked at now.
            device.event.raise();
            Ok(())
        })
    }

    fn device_features(&self) -> Features {
        self.0.offered
    }

    fn driver_features(&self) -> Features {
        self.0.with(|state| state.features)
    }

    /// They go to the task with `FEATURES_OK`.
    fn set_driver_features(&self, features: Features) -> Result<(), OpError> {
        if !features.contains(required()) {
            return Err(OpError::FeaturesRefused);
        }
        self.0.with(|state| state.features = features);
        Ok(())
    }

    fn status(&self) -> Result<DeviceStatus, OpError> {
        Ok(self.0.with(|state| state.status))
    }

    fn set_status(&self, status: DeviceStatus) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let device = &self.0;
            let (wanted, resets) = device.with(|state| {
                state.told = true;
                // VIRTIO 1.2, 2.2.2: a device that does not accept the features does not keep the
                // bit.
                let accepted = state.features.contains(required());
                let status = status | (state.status & DeviceStatus::DEVICE_NEEDS_RESET);
                let refused = DeviceStatus::FEATURES_OK;
                let wanted = if accepted { status } else { status - refused };
                (wanted, state.resets)
            });
            let answer = device.ask(Request::SetStatus(wanted.bits())).await?;
            device.with(|state| {
                check_resets(state, resets)?;
                let of_features = (wanted - state.status).contains(DeviceStatus::FEATURES_OK);
                let wanted = match answer.outcome {
                    Outcome::Done => wanted,
                    Outcome::Failed if of_features => wanted - DeviceStatus::FEATURES_OK,
                    Outcome::Failed => return Err(OpError::Invalid),
                };
                state.status = wanted | (state.status & DeviceStatus::DEVICE_NEEDS_RESET);
                Ok(())
            })?;
            device.event.raise();
            Ok(())
        })
    }

    /// The device stops here at once: the task is told, and what it answers changes nothing.
    fn reset(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let device = &self.0;
            let told = device.with(|state| {
                state.reset();
                mem::take(&mut state.told) && state.opened
            });
            device.quiet().await;
            if told {
                let _ = device.ask(Request::SetStatus(0)).await;
            }
            Ok(())
        })
    }

    /// There are none; this is the end of the last driver.
    fn stop_workers(&self) -> BoxFuture<'_, ()> {
        self.0.forget_driver();
        Box::pin(ready(()))
    }

    fn queue_count(&self) -> u16 {
        let queues = self.0.with(|state| state.virtqueues.len());
        u16::try_from(queues).expect("made from 16 bits")
    }

    fn queue_size_max(&self, queue: u16) -> u16 {
        self.0.with(|state| {
            let virtqueue = state.virtqueues.get(usize::from(queue));
            virtqueue.map_or(0, |virtqueue| virtqueue.size_max)
        })
    }

    fn queue_align(&self) -> usize {
        self.0.queue_align
    }

    fn set_queue_size(&self, queue: u16, size: u16) -> Result<(), OpError> {
        let spaces = &self.0.spaces;
        self.0
            .with(|state| state.set_up(queue, spaces, |virtqueue| virtqueue.size = size))
    }

    unsafe fn set_queue_address(&self, queue: u16, address: QueueAddress) -> Result<(), OpError> {
        let spaces = &self.0.spaces;
        self.0.with(|state| {
            state.set_up(queue, spaces, |virtqueue| virtqueue.address = Some(address))
        })
    }

    fn set_queue_state(&self, queue: u16, queue_state: QueueState) -> Result<(), OpError> {
        let spaces = &self.0.spaces;
        self.0.with(|state| {
            let packed = ring_features(state.features).packed;
            let wanted = queue_state.at_rest().ok_or(OpError::Invalid)?;
            if packed != matches!(wanted, RingState::Packed { .. }) {
                return Err(OpError::Invalid);
            }
            state.set_up(queue, spaces, |virtqueue| {
                virtqueue.state = Some(wanted);
                // The task learns it with the next request.
                virtqueue.has_run = false;
            })
        })
    }

    /// The task is asked, and what it says is compared with what is known here.
    fn queue_state(&self, queue: u16) -> BoxFuture<'_, Result<QueueState, OpError>> {
        Box::pin(async move {
            let (known, asked) = self.0.with(|state| {
                let asked = state.virtqueues[usize::from(queue)].has_run;
                (state.queue_state(queue), asked)
            });
            let known = known.ok_or(OpError::WrongState)?;
            if asked {
                let request = Request::GetQueueState {
                    queue: queue.into(),
                };
                let answer = self.0.ask(request).await?;
                if !tells(&answer, queue, known) {
                    return Err(self.lied("its task does not know where a queue stands"));
                }
            }
            Ok(known)
        })
    }

    fn set_queue_callback(&self, queue: u16, callback: Option<Callback>) {
        self.0
            .with(|state| state.virtqueues[usize::from(queue)].callback = callback);
    }

    fn set_queue_ready(&self, queue: u16, ready: bool) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(async move {
            let device = &self.0;
            let told = self.has(ProtocolFeatures::QUEUE_READY);
            let (resets, changes) = device.with(|state| {
                let resets = state.resets;
                let virtqueue = &mut state.virtqueues[usize::from(queue)];
                match (&mut virtqueue.active, ready) {
                    (None, true) => state.open(queue, &device.spaces)?,
                    (Some(_), false) if !told => return Err(OpError::Unsupported),
                    (Some(active), false) => active.stopping = true,
                    _ => return Ok((resets, false)),
                }
                Ok((resets, true))
            })?;
            if !changes {
                return Ok(());
            }
            if told {
                self.insist(Request::SetQueueReady {
                    queue: queue.into(),
                    ready,
                })
                .await?;
            }
            let at_rest = device.with_signals(|state, signals| {
                check_resets(state, resets)?;
                Ok::<_, OpError>(ready || state.close(queue, signals))
            })?;
            device.event.raise();
            device.quiet().await;
            if at_rest {
                Ok(())
            } else {
                Err(self.lied("its task keeps requests of a queue that is stopped"))
            }
        })
    }

    fn queue_ready(&self, queue: u16) -> Result<bool, OpError> {
        Ok(self
            .0
            .with(|state| state.virtqueues[usize::from(queue)].active.is_some()))
    }

    fn doorbell(&self, _queue: u16) -> Result<Doorbell, OpError> {
        Ok(Doorbell::event(Arc::clone(&self.0.event)))
    }

    fn queue_statistics(&self, queue: u16) -> Result<Vec<VendorCounter>, OpError> {
        Ok(self.0.with(|state| {
            let (requests, faults) = state.virtqueues[usize::from(queue)].counters();
            Vec::from([
                ("requests", requests),
                ("dma faults", faults),
                ("violations of the task", state.violations),
            ])
        }))
    }

    fn set_config_callback(&self, callback: Option<Callback>) {
        self.0.with(|state| state.config_callback = callback);
    }

    fn config_size(&self) -> u32 {
        self.0.config_size
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        self.0.with(|state| {
            let start = usize::try_from(offset).map_err(|_| OpError::OutOfRange)?;
            let rest = state.config.get(start..);
            let field = rest.and_then(|rest| rest.get(..bytes.len()));
            bytes.copy_from_slice(field.ok_or(OpError::OutOfRange)?);
            Ok(())
        })
    }

    /// As in Linux, a driver cannot change what the task says.
    fn write_config(&self, _offset: u32, _bytes: &[u8]) -> Result<(), OpError> {
        Ok(())
    }

    fn config_generation(&self) -> u32 {
        self.0.with(|state| state.generation)
    }
}

/// The state as it is told to the task.
pub(super) fn raw(state: QueueState) -> RawState {
    match state {
        QueueState::Split { avail_index } => RawState::of_split(avail_index),
        QueueState::Packed {
            avail_index,
            avail_wrap,
            used_index,
            used_wrap,
        } => RawState::of_packed(PackedState {
            avail_index,
            avail_wrap,
            used_index,
            used_wrap,
        }),
    }
}

/// Whether an answer says that the queue stands there.
fn tells(answer: &Response, queue: u16, known: QueueState) -> bool {
    let told = answer.outcome == Outcome::Done && answer.queue == u32::from(queue);
    let same = match known {
        QueueState::Split { avail_index } => answer.state.split() == avail_index,
        QueueState::Packed { .. } => raw(known).packed() == answer.state.packed(),
    };
    told && same
}
