//! The frame of a task: it answers the messages, and lets the device serve its queues in between.

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

    /// Requests that the device has taken and not completed are taken back; they come again when
    /// the driver wants.
    fn let_go(&mut self) {}

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

/// Runs a device until it is broken. A task that ends otherwise, by dropping the future and `task`,
/// can be followed by another one.
pub async fn serve(task: &Task, device: &mut dyn TaskDevice) -> TaskError {
    let mut frame = Frame {
        task,
        device,
        running: false,
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
}

impl Frame<'_> {
    fn turn(&mut self) -> Result<Turn, TaskError> {
        while let Some(bytes) = self.task.receive()? {
            let message = Message::decode(&bytes)?;
            let response = self.answer(message)?;
            match self.task.reply(&response.encode()) {
                // Whoever asked has gone.
                Ok(()) | Err(TaskError::Nobody) => {}
                Err(error) => return Err(error),
            }
        }
        if self.running {
            self.device.serve(self.task)
        } else {
            Ok(Turn::Idle)
        }
    }

    fn answer(&mut self, message: Message) -> Result<Response, TaskError> {
        let done = Response::new(message.id, Outcome::Done);
        match message.request {
            Request::GetQueueState { queue } => {
                let index = u16::try_from(queue).map_err(|_| TaskError::OutOfRange)?;
                let state = self.task.queue_info(index)?.state;
                Ok(Response {
                    queue,
                    state,
                    ..done
                })
            }
            Request::SetStatus(0) => {
                self.running = false;
                self.device.stop();
                Ok(done)
            }
            Request::SetStatus(status) => {
                let status = DeviceStatus::from_bits_retain(status);
                let started = status.contains(DeviceStatus::DRIVER_OK);
                let agreed = status.contains(DeviceStatus::FEATURES_OK);
                if agreed && !started && !self.device.accepts(self.task.features()) {
                    return Ok(Response::new(message.id, Outcome::Failed));
                }
                if started && !self.running {
                    self.start();
                }
                Ok(done)
            }
            Request::Suspend | Request::SetQueueReady { ready: false, .. } => {
                self.device.let_go();
                Ok(done)
            }
            Request::UpdateIotlb { .. }
            | Request::SetGroupAddressSpace { .. }
            | Request::SetQueueReady { .. } => Ok(done),
        }
    }

    fn start(&mut self) {
        self.running = true;
        self.device.start(self.task.features());
    }
}
