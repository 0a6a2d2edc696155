//! A device as its task has it: what Linux has in the device's file.

use alloc::sync::Arc;
use core::fmt;

use vdpa::Features;
use vduse_protocol::{Message, QueueInfo, QueueSetup, RawState, Response};
use virtio::DeviceStatus;

use super::device::Device;
use super::error::{OpenError, TaskError};
use super::ops::raw;
use super::state::State;
use super::vduse_queue::Job;

/// The largest size of a queue.
const QUEUE_SIZE_MAX: u16 = 1024;

/// The task's end of a device. Dropping it is how a task ends, whatever the reason: the device
/// stays, and what was not answered is for the next task.
pub struct Task(Arc<Device>);

impl Task {
    pub(super) fn open(device: Arc<Device>) -> Result<Self, OpenError> {
        device.open()?;
        Ok(Self(device))
    }

    /// What the device is called.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Waits until there may be something to do: a message, a request, or a driver that has come or
    /// gone, or somebody [wakes](Self::wake) it.
    pub async fn wait(&self) {
        self.0.event.wait().await;
    }

    /// Ends [`wait`](Self::wait): something else that the task waits for has come, as a frame or an
    /// answer from elsewhere.
    pub fn wake(&self) {
        self.0.event.raise();
    }

    /// The next message, if there is one. It wants an answer within the device's deadline.
    ///
    /// # Errors
    /// [`TaskError::Broken`].
    pub fn receive(&self) -> Result<Option<[u8; Message::SIZE]>, TaskError> {
        Ok(self.look()?.0)
    }

    /// The next message, and whether the bus has the device.
    pub(super) fn look(&self) -> Result<(Option<[u8; Message::SIZE]>, bool), TaskError> {
        let (message, attached) = self.0.with(|state| {
            state.check_whole()?;
            Ok::<_, TaskError>((state.mailbox.read(), state.attached))
        })?;
        Ok((message.map(|message| message.encode()), attached))
    }

    /// Answers a message with the bytes of a [`Response`].
    ///
    /// # Errors
    /// [`TaskError::Broken`]; [`TaskError::Decode`]; [`TaskError::Nobody`].
    pub fn reply(&self, response: &[u8]) -> Result<(), TaskError> {
        self.act(|state| {
            let response = Response::decode(response)?;
            let awaited = state.mailbox.answer(response);
            awaited.then_some(()).ok_or(TaskError::Nobody)
        })?;
        self.0.wake_waiters();
        Ok(())
    }

    /// The device status as the driver has set it.
    #[must_use]
    pub fn status(&self) -> DeviceStatus {
        self.0.with(|state| state.status)
    }

    /// The features that the driver has chosen, from `FEATURES_OK` on.
    #[must_use]
    pub fn features(&self) -> Features {
        self.0.with(|state| state.features)
    }

    /// Says what a queue can be, before the device is attached to the bus.
    ///
    /// # Errors
    /// [`TaskError::Broken`]; [`TaskError::OutOfRange`]; [`TaskError::Attached`];
    /// [`TaskError::Setup`], if the size is no power of two between 2 and 1024, or there is no such
    /// group.
    pub fn set_up_queue(&self, setup: QueueSetup) -> Result<(), TaskError> {
        self.act(|state| {
            if state.attached {
                return Err(TaskError::Attached);
            }
            let groups = state.groups.len();
            let group = u16::try_from(setup.group).ok();
            let group = group.filter(|group| usize::from(*group) < groups);
            let sizes = 2..=QUEUE_SIZE_MAX;
            let size =
                Some(setup.size_max).filter(|size| size.is_power_of_two() && sizes.contains(size));
            let index = usize::try_from(setup.index).unwrap_or(usize::MAX);
            let virtqueue = state
                .virtqueues
                .get_mut(index)
                .ok_or(TaskError::OutOfRange)?;
            virtqueue.size_max = size.ok_or(TaskError::Setup)?;
            virtqueue.group = group.ok_or(TaskError::Setup)?;
            Ok(())
        })
    }

    /// How the driver has set a queue up, and where it stands.
    ///
    /// # Errors
    /// [`TaskError::OutOfRange`].
    pub fn queue_info(&self, queue: u16) -> Result<QueueInfo, TaskError> {
        self.act(|state| {
            let virtqueue = state.virtqueues.get(usize::from(queue));
            let virtqueue = virtqueue.ok_or(TaskError::OutOfRange)?;
            let place = |of: fn(vdpa::ops::QueueAddress) -> virtq::DmaAddr| {
                virtqueue.address.map_or(0, |address| of(address).0)
            };
            Ok(QueueInfo {
                index: queue.into(),
                size: virtqueue.size.into(),
                descriptor: place(|address| address.descriptor),
                driver: place(|address| address.driver),
                device: place(|address| address.device),
                state: state.queue_state(queue).map_or(RawState::default(), raw),
                ready: virtqueue.active.is_some(),
            })
        })
    }

    /// Changes the configuration space. The driver is told by
    /// [`inject_config_interrupt`](Self::inject_config_interrupt).
    ///
    /// # Errors
    /// [`TaskError::Broken`]; [`TaskError::OutOfRange`].
    pub fn update_config(&self, offset: u32, bytes: &[u8]) -> Result<(), TaskError> {
        self.act(|state| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = state.config.get_mut(start..);
            let field = rest.and_then(|rest| rest.get_mut(..bytes.len()));
            field.ok_or(TaskError::OutOfRange)?.copy_from_slice(bytes);
            state.generation = state.generation.wrapping_add(1);
            state.config_changed = true;
            Ok(())
        })
    }

    /// Tells the driver that the configuration space has changed.
    ///
    /// # Errors
    /// [`TaskError::Broken`]; [`TaskError::NotRunning`]: a suspended driver is told when the device
    /// goes on.
    pub fn inject_config_interrupt(&self) -> Result<(), TaskError> {
        self.0.with_signals(|state, signals| {
            let checked = state.check_whole().and_then(|()| state.check_interrupts());
            state.count(checked)?;
            state.config_changed = false;
            signals.add(state.config_callback.as_ref());
            Ok(())
        })
    }

    /// Interrupts the driver of a queue, whether it wants to be or not. What was completed is shown
    /// by [`flush`](Self::flush), which interrupts, too, if that is wanted.
    ///
    /// # Errors
    /// [`TaskError::Broken`]; [`TaskError::OutOfRange`]; [`TaskError::NotRunning`];
    /// [`TaskError::NotReady`].
    pub fn inject_interrupt(&self, queue: u16) -> Result<(), TaskError> {
        self.0.with_signals(|state, signals| {
            let checked = state
                .check_whole()
                .and_then(|()| state.active(queue).map(|_| ()));
            state.count(checked)?;
            signals.add(state.virtqueues[usize::from(queue)].callback.as_ref());
            Ok(())
        })
    }

    /// Takes the next request of a queue, if there is one and the task may have another: first what
    /// a former task has left behind, in the order in which it had come.
    ///
    /// # Errors
    /// [`TaskError::Broken`]; [`TaskError::OutOfRange`].
    pub fn take(&self, queue: u16) -> Result<Option<Job>, TaskError> {
        self.0.with_signals(|state, signals| {
            state.check_whole()?;
            let taken = state.take(queue, signals);
            state.count(taken)
        })
    }

    /// Copies readable bytes of a request, from `offset` on, as many as `bytes` takes. Returns how
    /// many there were.
    ///
    /// # Errors
    /// [`TaskError`]; with [`TaskError::Fault`] a part may have been copied.
    pub fn read(&self, job: Job, offset: u64, bytes: &mut [u8]) -> Result<usize, TaskError> {
        self.act(|state| state.active(job.queue())?.read(job, offset, bytes))
    }

    /// Copies bytes into a request, from `offset` of its writable bytes on. Returns how many had
    /// room.
    ///
    /// The driver is told of the bytes that were written one after the other from the first one on:
    /// so write them in that order.
    ///
    /// # Errors
    /// [`TaskError`]; with [`TaskError::Fault`] a part may have been copied.
    pub fn write(&self, job: Job, offset: u64, bytes: &[u8]) -> Result<usize, TaskError> {
        self.act(|state| state.active(job.queue())?.write(job, offset, bytes))
    }

    /// Answers a request. The driver sees it with the next [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`TaskError`].
    pub fn complete(&self, job: Job) -> Result<(), TaskError> {
        self.act(|state| state.active(job.queue())?.complete(job))
    }

    /// Shows the driver of a queue what was completed.
    ///
    /// # Errors
    /// [`TaskError`].
    pub fn flush(&self, queue: u16) -> Result<(), TaskError> {
        self.0.with_signals(|state, signals| {
            state.check_whole()?;
            let flushed = state.flush(queue, signals);
            state.count(flushed)
        })
    }

    /// Does something that calls nobody. What is refused is counted.
    #[inline]
    fn act<T>(&self, act: impl FnOnce(&mut State) -> Result<T, TaskError>) -> Result<T, TaskError> {
        self.0.with(|state| {
            state.check_whole()?;
            let result = act(state);
            state.count(result)
        })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Task").field(&self.name()).finish()
    }
}
