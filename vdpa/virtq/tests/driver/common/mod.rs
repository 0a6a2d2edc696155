//! What the tests of the driver side share.

use std::iter;
use std::sync::Arc;

use virtq::testing::{DeviceRing, HeapDma, PackedDevice, Request};
use virtq::{
    Chain, DeviceHold, DmaAllocator, DmaBuffer, Queue, QueueConfig, RingFeatures, RingState,
    Segment,
};

/// Up to eight readable segments, all the same bytes, and a writable one.
#[derive(Debug)]
pub struct Message {
    pub readable: Option<DmaBuffer>,
    pub writable: Option<DmaBuffer>,
    pub repeat: usize,
}

// SAFETY: the segments are whole buffers that the value owns; repeated ones are only read.
unsafe impl Chain for Message {
    const MAX_SEGMENTS: u16 = 8;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let count = if self.readable.is_some() {
            self.repeat
        } else {
            0
        };
        let segment = self.readable.as_ref().map(Segment::of);
        (0..count).map(move |_| segment.expect("counted above"))
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.writable.as_ref().map(Segment::of).into_iter()
    }
}

pub struct Setup {
    pub dma: Arc<HeapDma>,
    pub hold: Arc<DeviceHold>,
}

impl Setup {
    pub fn new() -> Self {
        Self::limited(usize::MAX)
    }

    pub fn limited(bytes: usize) -> Self {
        Self {
            dma: HeapDma::limited(bytes),
            hold: DeviceHold::new(),
        }
    }

    pub fn allocator(&self) -> Arc<dyn DmaAllocator> {
        Arc::clone(&self.dma) as Arc<dyn DmaAllocator>
    }

    /// A message of `text` with room for `reply` bytes.
    pub fn message(&self, text: &[u8], reply: usize) -> Message {
        let allocator = self.allocator();
        let mut readable = DmaBuffer::new(&allocator, text.len()).unwrap();
        readable.copy_from_slice(text);
        let writable = iter::once(reply).filter(|&len| len > 0);
        let writable = writable
            .map(|len| DmaBuffer::new(&allocator, len).unwrap())
            .next();
        Message {
            readable: Some(readable),
            writable,
            repeat: 1,
        }
    }
}

pub struct Case {
    pub queue: Queue<Message>,
    pub device: DeviceRing,
    pub setup: Setup,
}

impl Case {
    pub fn new(size: u16, features: RingFeatures) -> Self {
        let setup = Setup::new();
        let config = QueueConfig {
            size,
            align: 1,
            features,
        };
        let queue = Queue::new(&config, &setup.allocator(), &setup.hold).unwrap();
        let device = DeviceRing::new(&setup.dma, queue.addresses(), size, features);
        Self {
            queue,
            device,
            setup,
        }
    }
}

/// A device side of either format.
pub enum Device {
    Split(DeviceRing),
    Packed(PackedDevice),
}

impl Device {
    /// The device side of a new queue.
    pub fn of<T: Chain>(queue: &Queue<T>, features: RingFeatures, setup: &Setup) -> Self {
        let (dma, addresses, size) = (&setup.dma, queue.addresses(), queue.size());
        match queue.state().expect("the queue is new") {
            RingState::Split { index } => {
                Self::Split(DeviceRing::at(dma, addresses, size, features, index))
            }
            RingState::Packed { index, wrap } => Self::Packed(PackedDevice::at(
                dma,
                addresses,
                size,
                features,
                (index, wrap),
            )),
        }
    }

    /// A device side that begins with the first entry, whatever the queue has been through.
    pub fn start<T: Chain>(queue: &Queue<T>, features: RingFeatures, setup: &Setup) -> Self {
        let (dma, addresses, size) = (&setup.dma, queue.addresses(), queue.size());
        if features.packed {
            Self::Packed(PackedDevice::new(dma, addresses, size, features))
        } else {
            Self::Split(DeviceRing::new(dma, addresses, size, features))
        }
    }

    pub fn pop(&mut self) -> Option<Request> {
        match self {
            Self::Split(device) => device.pop(),
            Self::Packed(device) => device.pop(),
        }
    }

    pub fn read(&self, request: &Request) -> Vec<u8> {
        match self {
            Self::Split(device) => device.read(request),
            Self::Packed(device) => device.read(request),
        }
    }

    pub fn write(&self, request: &Request, offset: usize, bytes: &[u8]) {
        match self {
            Self::Split(device) => device.write(request, offset, bytes),
            Self::Packed(device) => device.write(request, offset, bytes),
        }
    }

    /// Returns chains in order, by the last of them alone.
    pub fn finish_batch(&mut self, batch: &[Request], written: u32) {
        let last = batch.last().expect("a batch is not empty");
        match self {
            Self::Split(device) => {
                device.complete_batch(last.head.into(), written, batch.len().try_into().unwrap());
            }
            Self::Packed(device) => {
                let descriptors = batch.iter().map(|request| request.descriptors).sum();
                device.complete(last.head, written, descriptors);
            }
        }
    }
}

/// Sends a message without an answer through the queue.
pub fn round_trip(queue: &mut Queue<Message>, device: &mut DeviceRing, setup: &Setup) {
    queue.add(setup.message(b"x", 0)).unwrap();
    let _ = queue.publish();
    let request = device.pop().unwrap();
    device.complete(request.head.into(), 0);
    queue.take().unwrap().unwrap();
}
