//! Waiting for the device to use a buffer, with interrupts or without.

use core::task::Context;

use virtio_bus::{Completion, VirtQueue};
use virtq::{Chain, Pending, RewindError};

/// How often a wake-up may turn out to be for nothing before other tasks get a turn.
pub(super) const ATTEMPTS: usize = 4;

/// A queue whose device interrupts only while somebody waits.
#[derive(Debug)]
pub(super) struct InterruptQueue<T: Chain> {
    pub(super) queue: VirtQueue<T>,
    completion: Completion,
    /// Whether the device has been asked to interrupt for the next buffer that it uses.
    armed: bool,
}

impl<T: Chain> InterruptQueue<T> {
    pub(super) fn new(mut queue: VirtQueue<T>, completion: Completion) -> Self {
        queue.ring.disable_interrupts();
        Self {
            queue,
            completion,
            armed: false,
        }
    }

    /// Whether it is worth looking for used buffers. If not, `cx` is woken when it is.
    pub(super) fn poll_used(&mut self, cx: &mut Context<'_>) -> bool {
        if self.completion == Completion::Polled {
            // A poll looks again as soon as other tasks have had their turn.
            cx.waker().wake_by_ref();
            return self.queue.ring.has_used();
        }
        if !self.armed {
            // Asking looks at the ring, which answers all that was raised before.
            self.queue.event.take();
            self.armed = true;
            if self.queue.ring.enable_interrupts() == Pending::Yes {
                return true;
            }
        }
        self.queue.event.poll_wait(cx).is_ready()
    }

    /// Starts the queue again, while its device is at rest.
    pub(super) fn rewind(&mut self) -> Result<(), RewindError> {
        self.queue.ring.rewind()?;
        if !self.armed {
            self.queue.ring.disable_interrupts();
        } else if self.queue.ring.enable_interrupts() == Pending::Yes {
            self.queue.event.raise();
        }
        Ok(())
    }

    /// Nobody waits any more, or a used buffer has been taken, after which the device has to be
    /// asked again.
    #[inline]
    pub(super) fn disarm(&mut self) {
        if self.armed {
            self.queue.ring.disable_interrupts();
            self.armed = false;
        }
    }
}
