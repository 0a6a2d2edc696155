//! A device with queues that the suite drives by itself.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use virtq::{
    DeviceHold, DmaAddr, DmaAllocator, DmaBuffer, Doorbell, Event, Exchange, Notify, Queue,
    QueueConfig, Readable, Writable,
};

use crate::Features;
use crate::device::Attachment;
use crate::dma::{DmaSpace, Owner, Trust};
use crate::features::ring_features;
use crate::iotlb::{Fault, Permission, Target};
use crate::ops::{Backing, QueueAddress, QueueState};
use crate::platform::Callback;

use super::bench::{Bench, Format};
use super::verdict::{OrFail, Stop, Verdict, ensure};

/// The most queues that a rig has: no service needs more.
const LINES_MAX: u16 = 2;
/// What the answer holds until the device writes it.
pub(super) const UNTOUCHED: u8 = 0xa5;

/// The queues of a device, with memory that it can reach.
pub(super) struct Rig {
    // Dropped in this order: the buffers are taken away from the device before it is given back.
    pub(super) lines: Vec<Line>,
    pub(super) dma: Arc<dyn DmaAllocator>,
    space: Arc<DmaSpace>,
    pub(super) attachment: Arc<Attachment>,
    hold: Arc<DeviceHold>,
    features: Features,
}

/// One queue.
pub(super) struct Line {
    pub(super) index: u16,
    pub(super) ring: Queue<Exchange>,
    pub(super) doorbell: Doorbell,
    /// Raised by the device's interrupts.
    pub(super) event: Arc<Event>,
    /// Where the device writes the answer to the latest request.
    pub(super) latest: Option<DmaAddr>,
}

/// What has come back from a device.
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// How many of them the device says it has written.
    pub(super) written: usize,
}

impl Answer {
    /// Whether this is the answer to the subject's request of this number.
    pub(super) fn judge(&self, bench: &Bench<'_>, number: u8) -> Verdict {
        let used = bench.subject.request(number).used;
        let written = self.written;
        ensure(
            used.contains(&written),
            format!(
                "request {number}: {written} bytes are said to be written, not {} to {}",
                used.start(),
                used.end()
            ),
        )?;
        let bytes = self.bytes.get(..written);
        let bytes = bytes.ok_or_else(|| Stop::Failed(format!("request {number} has less room")))?;
        let judged = bench.subject.judge(number, bytes);
        judged.map_err(|reason| Stop::Failed(format!("request {number}: {reason}")))
    }
}

impl Rig {
    /// A device whose queues are ready, one step before `DRIVER_OK`.
    pub(super) async fn set_up(bench: &Bench<'_>, format: Format) -> Result<Self, Stop> {
        Self::with_features(bench, format, Features::EMPTY).await
    }

    /// The same with features of the device type.
    pub(super) async fn with_features(
        bench: &Bench<'_>,
        format: Format,
        extra: Features,
    ) -> Result<Self, Stop> {
        bench.device.reset().await.or_fail("reset")?;
        let attachment = bench.device.attach(Owner::Kernel, Trust::Isolated);
        let attachment = attachment.or_fail("the device can be attached to")?;
        let space = DmaSpace::new(&bench.platform);
        let attached = space.attach(Arc::<Attachment>::clone(&attachment));
        attached.or_fail("an empty address space")?;
        let mut rig = Self {
            lines: Vec::new(),
            dma: space.allocator(),
            space,
            attachment,
            hold: DeviceHold::new(),
            features: bench.wanted(format, extra)?,
        };
        bench.negotiate(rig.features).await?;
        for index in 0..bench.device.queue_count().min(LINES_MAX) {
            let line = rig.line(bench, index)?;
            let start = bench.ring_start(rig.features).into();
            line.tell(bench, Some(start)).await?;
            rig.lines.push(line);
        }
        Ok(rig)
    }

    /// A device that runs.
    pub(super) async fn start(bench: &Bench<'_>, format: Format) -> Result<Self, Stop> {
        Self::start_with(bench, format, Features::EMPTY).await
    }

    pub(super) async fn start_with(
        bench: &Bench<'_>,
        format: Format,
        extra: Features,
    ) -> Result<Self, Stop> {
        let rig = Self::with_features(bench, format, extra).await?;
        rig.run(bench).await?;
        Ok(rig)
    }

    /// Lets a device run whose queues are ready.
    pub(super) async fn run(&self, bench: &Bench<'_>) -> Verdict {
        self.hold.hold();
        bench.start().await
    }

    fn line(&self, bench: &Bench<'_>, index: u16) -> Result<Line, Stop> {
        let config = QueueConfig {
            size: bench.queue_size(index)?,
            align: bench.device.queue_align(),
            features: ring_features(self.features),
        };
        let ring = Queue::new(&config, &self.dma, &self.hold);
        let doorbell = bench.device.doorbell(index);
        Ok(Line {
            index,
            ring: ring.or_fail(format!("memory for queue {index}"))?,
            doorbell: doorbell.or_fail(format!("the doorbell of queue {index}"))?,
            event: Arc::default(),
            latest: None,
        })
    }

    /// Sets up the device anew, as another one would be that takes the queues over, and lets it
    /// run.
    pub(super) async fn take_over(
        &mut self,
        bench: &Bench<'_>,
        states: &[Option<QueueState>],
    ) -> Verdict {
        bench.negotiate(self.features).await?;
        for (line, state) in self.lines.iter_mut().zip(states) {
            let doorbell = bench.device.doorbell(line.index);
            line.doorbell = doorbell.or_fail("a doorbell")?;
            line.tell(bench, *state).await?;
        }
        bench.start().await
    }

    /// Takes the memory for the answer to the latest request of a queue away from the device, and
    /// waits until it holds. Returns the memory.
    pub(super) async fn withdraw_answer(&self, line: usize) -> Result<Backing, Stop> {
        let latest = self.lines.get(line).and_then(|line| line.latest);
        let addr = latest.ok_or(Stop::Skipped("its requests have no answer"))?;
        let found = self.attachment.with_table(0, |table| {
            let mapping = table.translate(addr.0, Permission::WRITE)?;
            let target = mapping.target.advance(addr.0 - mapping.range.first());
            Ok::<_, Fault>((mapping.range, target))
        });
        let (range, backing) = found
            .or_fail("what is mapped")?
            .or_fail("the buffer of an answer")?;
        let removed = self.attachment.unmap(0, range);
        removed.or_fail("the buffer is taken away")?;
        self.attachment.settle(0).await.or_fail("settle")?;
        Ok(backing)
    }

    /// Resets the device, takes its memory away and gives it back.
    pub(super) async fn stop(self, bench: &Bench<'_>) -> Verdict {
        bench.device.reset().await.or_fail("reset")?;
        let attachment = Arc::clone(&self.attachment);
        self.released();
        attachment
            .detach()
            .await
            .or_fail("the device is given back")
    }

    /// The device has been reset: the queues may go.
    pub(super) fn released(self) {
        self.hold.release();
        drop(self.lines);
        self.space.detach();
    }
}

impl Line {
    /// Tells the device of the queue and makes it ready.
    async fn tell(&self, bench: &Bench<'_>, state: Option<QueueState>) -> Verdict {
        let (device, index) = (&bench.device, self.index);
        let callback = Callback::event(Arc::clone(&self.event));
        device
            .set_queue_callback(index, Some(callback))
            .or_fail(format!("the callback of queue {index}"))?;
        let size = self.ring.size();
        device
            .set_queue_size(index, size)
            .or_fail(format!("size {size} of queue {index}"))?;
        let addresses = self.ring.addresses();
        let address = QueueAddress {
            descriptor: addresses.descriptor,
            driver: addresses.driver,
            device: addresses.device,
        };
        // SAFETY: the ring is that of a `Queue` of the rig's memory, held until a reset.
        unsafe { device.set_queue_address(index, address) }
            .or_fail(format!("the place of queue {index}"))?;
        if let Some(state) = state {
            device
                .set_queue_state(index, state)
                .or_fail(format!("{state:?} of queue {index}"))?;
        }
        let started = device.start_queue(index).await;
        started.or_fail(format!("queue {index} is made ready"))
    }

    /// Makes a request available, with room for an answer of so many bytes. The device is not told.
    pub(super) fn offer(
        &mut self,
        dma: &Arc<dyn DmaAllocator>,
        request: &[u8],
        answer: usize,
    ) -> Verdict {
        let answer = buffer(dma, &vec![UNTOUCHED; answer])?;
        self.latest = answer.as_ref().map(DmaBuffer::addr);
        let len = u32::try_from(request.len()).or_fail("the length of a request")?;
        let request = buffer(dma, request)?;
        let exchange = Exchange {
            request: request.map(|buffer| Readable { buffer, len }),
            answer: answer.map(Writable),
        };
        let added = self.ring.add(exchange).map_err(|error| error.reason);
        added.or_fail("room in the queue").map(drop)
    }

    /// Publishes what was offered and rings, if the device wants that.
    pub(super) fn kick(&mut self) {
        if self.ring.publish() == Notify::Needed {
            self.doorbell.ring(self.ring.place());
        }
    }

    /// What the device has used, if it has.
    pub(super) fn take(&mut self) -> Result<Option<Answer>, Stop> {
        let used = self.ring.take().or_fail("what the device has used")?;
        Ok(used.map(|used| Answer {
            bytes: used
                .chain
                .answer
                .map_or_else(Vec::new, |answer| answer.0.to_vec()),
            written: used.written as usize,
        }))
    }

    /// Waits until the device has used something.
    pub(super) async fn answer(&mut self, bench: &Bench<'_>) -> Result<Answer, Stop> {
        let taken = bench.wait(|| self.take().transpose()).await;
        taken.unwrap_or_else(|| {
            let queue = self.index;
            Err(Stop::Failed(format!("queue {queue}: nothing is used")))
        })
    }

    /// Whether the device uses nothing for a while.
    pub(super) async fn is_quiet(&mut self, bench: &Bench<'_>) -> Verdict {
        let calm = bench.stays_calm(|| self.take().transpose()).await;
        let queue = self.index;
        ensure(calm, format!("queue {queue}: something is used"))
    }
}

fn buffer(dma: &Arc<dyn DmaAllocator>, bytes: &[u8]) -> Result<Option<DmaBuffer>, Stop> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut buffer = DmaBuffer::new(dma, bytes.len()).or_fail("memory for a buffer")?;
    buffer.copy_from_slice(bytes);
    Ok(Some(buffer))
}
