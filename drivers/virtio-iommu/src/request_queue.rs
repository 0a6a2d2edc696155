//! The request queue: requests are sent together, and waited for.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hint::spin_loop;
use core::time::Duration;

use virtio_bus::{VirtQueue, VirtioDevice};
use virtq::{DmaAllocator, DmaBuffer, DmaError, Used};

use crate::error::{Dead, Refusal};
use crate::message::Message;
use crate::request::Request;

/// How long an IOMMU may work at a request, counted from when it has returned another one.
const DEADLINE: Duration = Duration::from_secs(2);
/// The most entries of the queue.
pub(crate) const SIZE_MAX: u16 = 128;

/// The request queue. Once it has answered [`Dead`] it is of no use any more.
#[derive(Debug)]
pub(crate) struct RequestQueue {
    queue: VirtQueue<Message>,
    /// As many as there is room for in the queue.
    idle: Vec<DmaBuffer>,
}

impl RequestQueue {
    /// The queue, with memory for the requests that fit it.
    pub(crate) fn new(
        queue: VirtQueue<Message>,
        dma: &Arc<dyn DmaAllocator>,
    ) -> Result<Self, DmaError> {
        let room = usize::from(queue.ring.size() / 2).max(1);
        let idle = Message::pool(dma, room)?;
        Ok(Self { queue, idle })
    }

    /// Sends requests that do not depend on each other, and says what became of each.
    pub(crate) fn send(
        &mut self,
        device: &VirtioDevice,
        requests: &[Request],
    ) -> Result<Vec<Result<(), Refusal>>, Dead> {
        let mut outcomes = Vec::with_capacity(requests.len());
        for part in requests.chunks(self.idle.len().max(1)) {
            let start = outcomes.len();
            // Whatever becomes of them is written there.
            outcomes.resize(start + part.len(), Err(Refusal::Unanswered));
            let mut messages = Vec::with_capacity(part.len());
            for (place, request) in part.iter().enumerate() {
                let buffer = self.idle.pop().ok_or(Dead::Broken)?;
                messages.push(Message::new(buffer, *request, place));
            }
            for used in self.exchange(device, messages)? {
                outcomes[start + used.chain.place] = used.chain.outcome(used.written);
                self.idle.push(used.chain.into_buffer());
            }
        }
        Ok(outcomes)
    }

    /// Sends one request with memory of its own.
    pub(crate) fn ask(
        &mut self,
        device: &VirtioDevice,
        message: Message,
    ) -> Result<Used<Message>, Dead> {
        let mut used = self.exchange(device, Vec::from([message]))?;
        used.pop().ok_or(Dead::Broken)
    }

    /// Sends all of them with one notification, and waits until they are back.
    fn exchange(
        &mut self,
        device: &VirtioDevice,
        messages: Vec<Message>,
    ) -> Result<Vec<Used<Message>>, Dead> {
        let count = messages.len();
        for message in messages {
            self.queue.ring.add(message).map_err(|_| Dead::Broken)?;
        }
        self.queue.kick();
        let mut back = Vec::with_capacity(count);
        let platform = device.platform();
        let mut deadline = platform.now() + DEADLINE;
        while back.len() < count {
            if let Some(used) = self.queue.ring.take().map_err(|_| Dead::Broken)? {
                back.push(used);
                deadline = platform.now() + DEADLINE;
                continue;
            }
            device.check().map_err(|_| Dead::Gone)?;
            if platform.now() > deadline {
                return Err(Dead::Silent);
            }
            spin_loop();
        }
        Ok(back)
    }
}
