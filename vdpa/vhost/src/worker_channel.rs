//! Where a client leaves what has to be done and the shim's worker takes it.
//!
//! What may wait for the device is done by a task of the shim: a client that drops a future
//! half-way, or never polls it again, stops nobody else, least of all the removal of the device.

use alloc::sync::Arc;
use core::future::poll_fn;
use core::task::Poll;

use spin::Mutex;
use vdpa::ops::QueueState;
use vdpa::wait::Waiters;
use virtio::DeviceStatus;
use virtq::Event;

use super::VhostError;

/// What the worker does for its client, one at a time.
#[derive(Debug)]
pub(super) enum Command {
    Open,
    SetStatus(DeviceStatus),
    EnableVring(u16),
    DisableVring(u16),
    SetVringKick(u16, Option<Arc<Event>>),
    /// Where the queue stands goes there.
    GetVringBase(u16, Arc<Mutex<Option<QueueState>>>),
    SetGroupAsid(u16, u16),
    Suspend,
    Resume,
    Settle(u16),
}

/// What became of a command.
type Outcome = Result<(), VhostError>;

/// The place of exchange between one client and its worker.
#[derive(Debug, Default)]
pub(super) struct WorkerChannel {
    state: Mutex<ChannelState>,
    /// Raised for the worker.
    bell: Event,
    /// For callers that wait until there is room, or until the worker is done.
    changed: Waiters,
}

#[derive(Debug, Default)]
struct ChannelState {
    pending: Option<PendingCommand>,
    /// No command is taken any more.
    ending: bool,
    /// How the worker has ended.
    ended: Option<Outcome>,
}

/// A command and where its outcome goes.
#[derive(Debug)]
struct PendingCommand {
    command: Command,
    reply: Arc<Reply>,
}

/// Where the outcome of a command goes.
#[derive(Debug, Default)]
pub(super) struct Reply {
    outcome: Mutex<Option<Outcome>>,
    written: Event,
}

impl Reply {
    /// Tells the client, if it still listens.
    pub(super) fn answer(&self, outcome: Outcome) {
        *self.outcome.lock() = Some(outcome);
        self.written.raise();
    }
}

impl WorkerChannel {
    /// Has a command carried out. Dropped half-way, it is carried out all the same, once it is
    /// pending.
    ///
    /// # Errors
    /// [`VhostError::HungUp`], if the worker takes no more; whatever becomes of the command.
    pub(super) async fn carry_out(&self, command: Command) -> Outcome {
        let reply = Arc::<Reply>::default();
        let mut command = Some(command);
        self.changed
            .until(|| self.post(&mut command, &reply))
            .await?;
        self.bell.raise();
        reply.written.wait().await;
        let outcome = reply.outcome.lock().take();
        outcome.unwrap_or(Err(VhostError::HungUp))
    }

    /// The next command, by their arrival; `None`, if there will be none.
    pub(super) async fn next(&self) -> Option<(Command, Arc<Reply>)> {
        let pending = poll_fn(|cx| {
            loop {
                let mut state = self.state.lock();
                if let Some(pending) = state.pending.take() {
                    return Poll::Ready(Some(pending));
                }
                if state.ending {
                    return Poll::Ready(None);
                }
                drop(state);
                if self.bell.poll_wait(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
        self.changed.wake();
        pending.map(|PendingCommand { command, reply }| (command, reply))
    }

    /// The worker shall end after what it is at.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.ending = true;
        let unheard = state.pending.take();
        drop(state);
        if let Some(pending) = unheard {
            pending.reply.answer(Err(VhostError::HungUp));
        }
        self.bell.raise();
        self.changed.wake();
    }

    /// The worker has ended.
    pub(super) fn ended(&self, outcome: Outcome) {
        self.state.lock().ended = Some(outcome);
        self.changed.wake();
    }

    /// Waits for the end of the worker.
    pub(super) async fn wait_for_end(&self) -> Outcome {
        self.changed.until(|| self.state.lock().ended).await
    }

    /// Leaves a command; `None`, if another one is pending.
    fn post(&self, command: &mut Option<Command>, reply: &Arc<Reply>) -> Option<Outcome> {
        let mut state = self.state.lock();
        if state.ending {
            return Some(Err(VhostError::HungUp));
        }
        if state.pending.is_some() {
            return None;
        }
        let command = command.take()?;
        state.pending = Some(PendingCommand {
            command,
            reply: Arc::clone(reply),
        });
        Some(Ok(()))
    }
}
