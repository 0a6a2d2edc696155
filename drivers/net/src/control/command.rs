//! The memory of a command, of which there is one at a time, and the command as the card sees it.

use alloc::sync::Arc;

use spin::Mutex;
use vdpa::wait::Waiters;
use virtq::{Chain, DmaAllocator, DmaBuffer, DmaError, Segment};

use super::setting::Setting;

/// Where the card writes its answer, behind the command.
const ACK: usize = Setting::ENCODED_MAX;
/// The command and its answer.
const LEN: usize = ACK + 1;
/// What the answer's byte holds until the card writes it.
const ACK_UNTOUCHED: u8 = 0xff;

/// What a card answers (VIRTIO 1.2, 5.1.6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    Ok,
    Error,
}

/// The card did not answer as the specification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the card leaves a command without an answer that there is")]
pub(super) struct NoAnswer;

/// The place of the one command that can be under way. It is taken for as long as the card has it,
/// also if nobody waits for the answer any more.
#[derive(Debug)]
pub(crate) struct Slot {
    state: Mutex<State>,
    changed: Waiters,
}

#[derive(Debug)]
struct State {
    buffer: Option<DmaBuffer>,
    closed: bool,
}

impl Slot {
    /// A place in memory that the card can reach.
    pub(crate) fn new(allocator: &Arc<dyn DmaAllocator>) -> Result<Arc<Self>, DmaError> {
        let state = State {
            buffer: Some(DmaBuffer::new(allocator, LEN)?),
            closed: false,
        };
        Ok(Arc::new(Self {
            state: Mutex::new(state),
            changed: Waiters::default(),
        }))
    }

    /// Waits until the place is free. `None`, once there is no more to be had.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Loan> {
        let free = || {
            let mut state = self.state.lock();
            if state.closed {
                return Some(None);
            }
            let buffer = state.buffer.take()?;
            Some(Some(Loan {
                buffer: Some(buffer),
                home: Arc::clone(self),
            }))
        };
        self.changed.until(free).await
    }

    /// Whether no command is under way.
    pub(super) fn is_free(&self) -> bool {
        self.state.lock().buffer.is_some()
    }

    /// Whether there is nothing to be had any more.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Lets nobody in any more, and frees the memory as soon as the card does not have it.
    pub(super) fn close(&self) {
        let buffer = {
            let mut state = self.state.lock();
            state.closed = true;
            state.buffer.take()
        };
        drop(buffer);
        self.changed.wake();
    }

    fn give_back(&self, buffer: DmaBuffer) {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            drop(buffer);
            return;
        }
        state.buffer = Some(buffer);
        drop(state);
        self.changed.wake();
    }
}

/// The right to the place, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct Loan {
    /// There until the end.
    buffer: Option<DmaBuffer>,
    home: Arc<Slot>,
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.home.give_back(buffer);
        }
    }
}

/// A command on its way to the card and back.
#[derive(Debug)]
pub(crate) struct Command {
    loan: Loan,
    command: Segment,
    ack: Segment,
}

impl Command {
    /// Writes a command.
    pub(super) fn new(mut loan: Loan, setting: Setting) -> Self {
        let mut bytes = [0; Setting::ENCODED_MAX];
        let len = setting.encode(&mut bytes);
        let buffer = loan
            .buffer
            .as_mut()
            .expect("a loan has its buffer until it ends");
        assert!(buffer.len() == LEN, "as the slot has allocated it");
        buffer[..ACK].copy_from_slice(&bytes);
        buffer[ACK] = ACK_UNTOUCHED;
        let command = Segment::prefix(buffer, u32::try_from(len).expect("a few bytes"));
        let ack = Segment::part(buffer, ACK as u32, 1);
        Self { loan, command, ack }
    }

    /// What the card answered when it wrote `written` bytes.
    pub(super) fn answer(&self, written: u32) -> Result<Ack, NoAnswer> {
        let ack = self.loan.buffer.as_ref().map(|buffer| buffer[ACK]);
        match (ack, written) {
            (Some(0), 1) => Ok(Ack::Ok),
            (Some(1), 1) => Ok(Ack::Error),
            _ => Err(NoAnswer),
        }
    }
}

// SAFETY: The segments are the first bytes of the buffer, at most `ACK` of them as
// `Setting::encode` has filled no more, and the one at `ACK`; `new` has compared its length. The
// value owns the loan and so the buffer, changes neither, and lets nobody else.
unsafe impl Chain for Command {
    const MAX_SEGMENTS: u16 = 2;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        core::iter::once(self.command)
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        core::iter::once(self.ack)
    }
}
