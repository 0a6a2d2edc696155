//! The frame of a task: it answers the messages, and lets the device serve its queues in between.

use alloc::vec::Vec;

use embassy_futures::yield_now;
use vdpa::Features;
use vduse_protocol::{Message, Outcome, Request, Response};
use virtio::DeviceStatus;

use super::error::TaskError;
use super::task::Task;

/// What a device does. All that it needs is in [`Task`].
pub trait TaskDevice: Send {
    /// Whether the device can work with what the driver has chosen of its features.
    fn accepts(&mut self, _features: Features) -> bool {
        true
    }

    /// The driver has started the device, or had when this task came.
    fn start(&mut self, _features: Features) {}

    /// The driver has reset the device.
    fn stop(&mut self) {}

    /// The device is to rest: it gets no more requests. Unless it can do so at once it is asked again
    /// after each turn, within the device's deadline.
    fn rest(&mut self) -> Rest {
        Rest::Reached
    }

    /// Requests that the device has taken and not completed are taken back; they come again when
    /// the driver wants.
    fn let_go(&mut self) {}

    /// The bus has the device.
    fn attached(&mut self) {}

    /// The bus has the device no more; somebody may attach it again.
    fn detached(&mut self) {}

    /// Serves the queues for a while.
    ///
    /// # Errors
    /// What [`Task`] answers. Unless the device is broken that is no end: a driver may take a queue
    /// back at any time.
    fn serve(&mut self, task: &Task) -> Result<Turn, TaskError>;
}

/// How a turn of a device has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing can be done before the driver, or somebody else, wakes the task.
    Idle,
    /// There is more to do; others come first.
    More,
}

/// Whether a device has come to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It has. What it has not completed can be taken back.
    Reached,
    /// Not yet: it has requests that cannot be taken back.
    Pending,
    /// It cannot, and goes on. A single queue is stopped nevertheless.
    Refused,
}

/// Runs a device until it is broken. A task that ends otherwise, by dropping the future and `task`,
/// can be followed by another one.
pub async fn serve(task: &Task, device: &mut dyn TaskDevice) -> TaskError {
    let mut frame = Frame {
        task,
        device,
        running: false,
        attached: false,
        resting: Vec::new(),
    };
    if task.status().contains(DeviceStatus::DRIVER_OK) {
        frame.start();
    }
    loop {
        match frame.turn() {
            Ok(Turn::More) => yield_now().await,
            Err(TaskError::Broken) => return TaskError::Broken,
            // With an error the driver was faster: then a message follows.
            Ok(Turn::Idle) | Err(_) => task.wait().await,
        }
    }
}

struct Frame<'t> {
    task: &'t Task,
    device: &'t mut dyn TaskDevice,
    running: bool,
    attached: bool,
    /// Messages that are answered when the device has come to rest.
    resting: Vec<Message>,
}

impl Frame<'_> {
    fn turn(&mut self) -> Result<Turn, TaskError> {
        loop {
            let (bytes, attached) = self.task.look()?;
            self.look_at_bus(attached);
            let Some(bytes) = bytes else { break };
            let message = Message::decode(&bytes)?;
            if let Some(response) = self.answer(message)? {
                self.reply(response)?;
            }
        }
        self.rest()?;
        if self.running {
            self.device.serve(self.task)
        } else {
            Ok(Turn::Idle)
        }
    }

    fn look_at_bus(&mut self, attached: bool) {
        match (self.attached, attached) {
            (false, true) => self.device.attached(),
            (true, false) => self.device.detached(),
            _ => {}
        }
        self.attached = attached;
    }

    fn reply(&self, response: Response) -> Result<(), TaskError> {
        match self.task.reply(&response.encode()) {
            // Who asked has gone.
            Ok(()) | Err(TaskError::Nobody) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Answers those who want the device at rest, if it is.
    fn rest(&mut self) -> Result<(), TaskError> {
        if self.resting.is_empty() {
            return Ok(());
        }
        let rest = if self.running {
            self.device.rest()
        } else {
            Rest::Reached
        };
        if rest == Rest::Pending {
            return Ok(());
        }
        for message in core::mem::take(&mut self.resting) {
            let refused = rest == Rest::Refused && message.request == Request::Suspend;
            let outcome = if refused {
                Outcome::Failed
            } else {
                self.device.let_go();
                Outcome::Done
            };
            self.reply(Response::new(message.id, outcome))?;
        }
        Ok(())
    }

    /// The answer to a message, unless it comes when the device is at rest.
    fn answer(&mut self, message: Message) -> Result<Option<Response>, TaskError> {
        let done = Response::new(message.id, Outcome::Done);
        match message.request {
            Request::GetQueueState { queue } => {
                let index = u16::try_from(queue).map_err(|_| TaskError::OutOfRange)?;
                let state = self.task.queue_info(index)?.state;
                Ok(Some(Response {
                    queue,
                    state,
                    ..done
                }))
            }
            Request::SetStatus(0) => {
                self.running = false;
                self.device.stop();
                Ok(Some(done))
            }
            Request::SetStatus(status) => {
                let status = DeviceStatus::from_bits_retain(status);
                let started = status.contains(DeviceStatus::DRIVER_OK);
                let agreed = status.contains(DeviceStatus::FEATURES_OK);
                if agreed && !started && !self.device.accepts(self.task.features()) {
                    return Ok(Some(Response::new(message.id, Outcome::Failed)));
                }
                if started && !self.running {
                    self.start();
                }
                Ok(Some(done))
            }
            Request::Suspend | Request::SetQueueReady { ready: false, .. } => {
                self.resting.push(message);
                Ok(None)
            }
            Request::UpdateIotlb { .. }
            | Request::SetGroupAddressSpace { .. }
            | Request::SetQueueReady { .. } => Ok(Some(done)),
        }
    }

    fn start(&mut self) {
        self.running = true;
        self.device.start(self.task.features());
    }
}
