//! A vDPA device whose queues the test drives by itself, with memory that the card reaches.

use std::sync::Arc;
use std::time::Duration;

use vdpa::device::VdpaClaim;
use vdpa::ops::{OpError, QueueAddress, QueueState};
use vdpa::platform::Callback;
use vdpa::testing::FakePlatform;
use vdpa::{Features, Platform};
use virtio::DeviceStatus;
use virtq::{
    DeviceHold, DmaAddr, DmaAllocator, DmaBuffer, Doorbell, Event, Exchange, Notify, Queue,
    QueueConfig, Readable, RingFeatures, Writable,
};

/// How long a card may take for anything.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_micros(100);
/// The header of a frame.
pub(crate) const HEADER: usize = 12;
/// Room for the largest frame and its header.
pub(crate) const BUFFER: usize = HEADER + 1514;
const SECTOR: usize = 512;
const OUT: u32 = 1;

/// The queues.
pub(crate) struct Rig {
    platform: Arc<FakePlatform>,
    pub(crate) device: Arc<VdpaClaim>,
    pub(crate) lines: Vec<Line>,
    /// Raised when the configuration has changed.
    pub(crate) config: Arc<Event>,
    features: Features,
    hold: Arc<DeviceHold>,
    /// The same for the queues that were set up anew.
    restarted: Vec<Arc<DeviceHold>>,
}

/// One of them.
pub(crate) struct Line {
    index: u16,
    pub(crate) ring: Queue<Exchange>,
    doorbell: Option<Doorbell>,
    /// Raised by its interrupts.
    pub(crate) event: Arc<Event>,
}

/// What must be negotiated, and what rings can have.
pub(crate) fn ring() -> Features {
    let ring = virtio::F::EVENT_IDX | virtio::F::INDIRECT_DESC;
    Features::from(ring) | must()
}

/// What must be negotiated.
pub(crate) fn must() -> Features {
    (virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM).into()
}

/// What it takes to have more than one pair.
pub(crate) fn multiqueue() -> Features {
    (virtio::net::F::MQ | virtio::net::F::CTRL_VQ).into()
}

impl Rig {
    /// All queues of a device that runs.
    pub(crate) fn start(
        platform: &Arc<FakePlatform>,
        device: &Arc<VdpaClaim>,
        features: Features,
    ) -> Self {
        let mut rig = Self::new(platform, device, features);
        let states = vec![None; rig.lines.len()];
        platform.block_on(rig.run(&states)).unwrap();
        rig
    }

    /// Queues that the device does not know yet.
    pub(crate) fn new(
        platform: &Arc<FakePlatform>,
        device: &Arc<VdpaClaim>,
        features: Features,
    ) -> Self {
        let hold = DeviceHold::new();
        let line = |index| {
            let config = QueueConfig {
                size: 32,
                align: device.queue_align(),
                features: RingFeatures::NONE
                    .with_event_idx(features.contains(virtio::F::EVENT_IDX))
                    .with_indirect(features.contains(virtio::F::INDIRECT_DESC)),
            };
            Line {
                index,
                ring: Queue::new(&config, &platform.dma(), &hold).unwrap(),
                doorbell: None,
                event: Arc::default(),
            }
        };
        let lines = (0..device.queue_count()).map(line).collect();
        Self {
            platform: Arc::clone(platform),
            device: Arc::clone(device),
            lines,
            config: Arc::default(),
            features,
            hold,
            restarted: Vec::new(),
        }
    }

    /// Sets the device up and lets it run, each queue from its state on.
    pub(crate) async fn run(&mut self, states: &[Option<QueueState>]) -> Result<(), OpError> {
        let device = Arc::clone(&self.device);
        device.reset().await?;
        let driver = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        let agreed = driver | DeviceStatus::FEATURES_OK;
        device.set_status(DeviceStatus::ACKNOWLEDGE).await?;
        device.set_status(driver).await?;
        device.set_driver_features(self.features)?;
        device.set_status(agreed).await?;
        self.hold.hold();
        for (line, state) in self.lines.iter_mut().zip(states) {
            line.tell(&device, *state)?;
            device.start_queue(line.index).await?;
        }
        device.set_config_callback(Some(Callback::event(Arc::clone(&self.config))))?;
        device.set_status(agreed | DeviceStatus::DRIVER_OK).await
    }

    /// Suspends the device, asks where its queues stand, and lets another one go on there.
    pub(crate) async fn move_to(&mut self, to: &Arc<VdpaClaim>) -> Result<(), OpError> {
        self.device.suspend().await?;
        let states = self.states().await?;
        self.device.reset().await?;
        self.device = Arc::clone(to);
        self.run(&states).await?;
        self.lines.iter().for_each(Line::ring);
        Ok(())
    }

    pub(crate) async fn states(&self) -> Result<Vec<Option<QueueState>>, OpError> {
        let mut states = Vec::new();
        for line in &self.lines {
            states.push(Some(self.device.queue_state(line.index).await?));
        }
        Ok(states)
    }

    /// Makes a request available on a queue, with room for an answer, and tells the card.
    pub(crate) fn ask(&mut self, queue: usize, request: &[u8], answer: usize) -> u64 {
        let dma = self.platform.dma();
        let line = &mut self.lines[queue];
        let page = line.offer(&dma, request, answer);
        if line.ring.publish() == Notify::Needed {
            line.ring();
        }
        page
    }

    /// What has come back on a queue: the bytes, and how many of them the card has written.
    pub(crate) fn take(&mut self, queue: usize) -> Option<(Vec<u8>, usize)> {
        let used = self.lines[queue].ring.take().unwrap()?;
        let answer = used.chain.answer;
        let answer = answer.map_or_else(Vec::new, |answer| answer.0.to_vec());
        Some((answer, used.written as usize))
    }

    /// Waits until something has come back on a queue.
    pub(crate) fn wait(&mut self, queue: usize) -> (Vec<u8>, usize) {
        let end = self.platform.now() + PATIENCE;
        loop {
            if let Some(used) = self.take(queue) {
                return used;
            }
            assert!(self.platform.now() < end, "nothing comes on queue {queue}");
            self.pass(LOOK);
        }
    }

    /// Lets some time pass.
    pub(crate) fn pass(&self, time: Duration) {
        self.platform.block_on(self.platform.sleep(time));
    }

    /// Gives a pair a receive buffer, and sends a frame with this number on it.
    pub(crate) fn send(&mut self, pair: usize, number: u32) {
        self.ask(2 * pair, &[], BUFFER);
        let mut bytes = vec![0; HEADER + 60];
        bytes[HEADER..HEADER + 4].copy_from_slice(&number.to_le_bytes());
        self.ask(2 * pair + 1, &bytes, 0);
    }

    /// The number of the next frame on a pair, if one has come.
    pub(crate) fn received(&mut self, pair: usize) -> Option<u32> {
        let (bytes, written) = self.take(2 * pair)?;
        assert_eq!(written, HEADER + 60);
        while self.take(2 * pair + 1).is_some() {}
        let number = bytes[HEADER..HEADER + 4].try_into().unwrap();
        Some(u32::from_le_bytes(number))
    }

    /// Waits for the next frame on a pair, and returns its number.
    pub(crate) fn frame(&mut self, pair: usize) -> u32 {
        let end = self.platform.now() + PATIENCE;
        loop {
            if let Some(number) = self.received(pair) {
                return number;
            }
            assert!(self.platform.now() < end, "no frame comes on pair {pair}");
            self.pass(LOOK);
        }
    }

    /// Writes a sector full of this number.
    pub(crate) fn write_sector(&mut self, queue: usize, sector: u64, number: u8) {
        let mut bytes = OUT.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(sector.to_le_bytes());
        bytes.extend([number; SECTOR]);
        self.ask(queue, &bytes, 1);
    }

    /// Makes the ring of a queue one whose driver has made so many requests.
    pub(crate) fn set_index(&mut self, queue: usize, index: u16) {
        let DmaAddr(driver) = self.lines[queue].ring.addresses().driver;
        let heap = self.platform.heap();
        heap.write(DmaAddr(driver + 2), &index.to_le_bytes())
            .unwrap();
    }

    /// Sets a queue up anew that has been stopped alone, with a new ring.
    pub(crate) fn restart(&mut self, queue: usize) {
        let fresh = Self::new(&self.platform, &self.device, self.features);
        let line = fresh.lines.into_iter().nth(queue).unwrap();
        self.lines[queue].ring = line.ring;
        self.restarted.push(fresh.hold);
        let hold = self.restarted.last().unwrap();
        hold.hold();
        let line = &mut self.lines[queue];
        line.tell(&self.device, None).unwrap();
        let started = self.device.start_queue(line.index);
        self.platform.block_on(started).unwrap();
    }

    /// Resets the device, after which its queues may go.
    pub(crate) fn stop(self) {
        self.platform.block_on(self.device.reset()).unwrap();
        self.hold.release();
        self.restarted.iter().for_each(|hold| hold.release());
    }
}

impl Line {
    fn tell(&mut self, device: &VdpaClaim, state: Option<QueueState>) -> Result<(), OpError> {
        let index = self.index;
        let callback = Callback::event(Arc::clone(&self.event));
        device.set_queue_callback(index, Some(callback))?;
        device.set_queue_size(index, self.ring.size())?;
        let addresses = self.ring.addresses();
        let address = QueueAddress {
            descriptor: addresses.descriptor,
            driver: addresses.driver,
            device: addresses.device,
        };
        // SAFETY: the ring is that of a `Queue` of the rig, held until a reset.
        unsafe { device.set_queue_address(index, address) }?;
        if let Some(state) = state {
            device.set_queue_state(index, state)?;
        }
        self.doorbell = Some(device.doorbell(index)?);
        Ok(())
    }

    /// Notifies the card, whether it wants that or not.
    pub(crate) fn ring(&self) {
        if let Some(doorbell) = &self.doorbell {
            doorbell.ring(self.ring.place());
        }
    }

    /// Returns the first page of the answer.
    fn offer(&mut self, dma: &Arc<dyn DmaAllocator>, request: &[u8], answer: usize) -> u64 {
        let buffer = |len: usize| (len > 0).then(|| DmaBuffer::new(dma, len).unwrap());
        let mut readable = buffer(request.len());
        if let Some(buffer) = &mut readable {
            buffer.copy_from_slice(request);
        }
        let writable = buffer(answer);
        let page = writable.as_ref().map_or(0, |buffer| buffer.addr().0 / 4096);
        let len = u32::try_from(request.len()).unwrap();
        let exchange = Exchange {
            request: readable.map(|buffer| Readable { buffer, len }),
            answer: writable.map(Writable),
        };
        let added = self.ring.add(exchange).map_err(|error| error.reason);
        added.unwrap();
        page
    }
}
