//! A driver that does what the test says, and a task that answers as the test wants.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use embassy_futures::select::select;
use vdpa::Features;
use vdpa::device::{Attachment, Removal, Removed, VdpaClaim};
use vdpa::dma::{DmaSpace, Owner, Trust};
use vdpa::keeper::hold;
use vdpa::ops::{OpError, QueueAddress};
use vdpa::platform::Callback;
use vdpa_vduse::protocol::{DeviceConfig, Message, Outcome, QueueSetup, Request, Response};
use vdpa_vduse::{Options, Task};
use virtio::DeviceStatus;
use virtq::{
    DeviceHold, DmaAllocator, DmaBuffer, Doorbell, Event, Exchange, Notify, Queue, QueueConfig,
    Readable, RingFeatures, Writable,
};

use crate::world::{DEADLINE, World};

/// Entries of the queues of a test, and the bytes of the buffers in them.
pub const SIZE: u16 = 8;
pub const REQUEST: usize = 32;
pub const ANSWER: usize = 64;
/// What the answer holds until somebody writes it.
pub const UNTOUCHED: u8 = 0xa5;
/// The size of the configuration space.
pub const CONFIG: usize = 12;

pub fn features(packed: bool) -> Features {
    let base = Features::from(virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM);
    if packed {
        base | virtio::F::RING_PACKED.into()
    } else {
        base
    }
}

/// A device of two queues, whose task is open.
pub fn create(world: &World, options: Options) -> Arc<Task> {
    let config = DeviceConfig {
        name: "device".into(),
        vendor_id: 0,
        device_id: 1,
        features: u64::try_from(features(true).bits()).unwrap(),
        queues: 2,
        queue_align: 1,
        groups: 1,
        address_spaces: 1,
        config: (0..CONFIG as u8).collect(),
    };
    let options = Options {
        deadline: DEADLINE,
        ..options
    };
    world.control.create(&config, options).unwrap();
    let task = world.control.open("device").unwrap();
    for index in 0..2 {
        task.set_up_queue(setup(index)).unwrap();
    }
    Arc::new(task)
}

pub fn setup(index: u32) -> QueueSetup {
    QueueSetup {
        index,
        size_max: 64,
        group: 0,
    }
}

/// How a task answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Honest,
    /// What it can refuse, it refuses.
    Refusing,
    /// It reads, and says nothing.
    Silent,
    /// It is honest, and says everything twice; the second time nobody waits.
    Twice,
    /// Its queues are somewhere else.
    Lost,
}

/// Answers messages in the background.
pub struct Puppet {
    stop: Arc<Event>,
    manner: Arc<Mutex<Manner>>,
    pub seen: Arc<Mutex<Vec<Request>>>,
}

impl Puppet {
    pub fn start(world: &World, task: &Arc<Task>) -> Self {
        let puppet = Self {
            stop: Arc::default(),
            manner: Arc::new(Mutex::new(Manner::Honest)),
            seen: Arc::default(),
        };
        let (stop, task) = (Arc::clone(&puppet.stop), Arc::clone(task));
        let (manner, seen) = (Arc::clone(&puppet.manner), Arc::clone(&puppet.seen));
        let running = async move {
            let answering = async {
                loop {
                    while let Ok(Some(bytes)) = task.receive() {
                        let message = Message::decode(&bytes).unwrap();
                        seen.lock().unwrap().push(message.request);
                        let manner = *manner.lock().unwrap();
                        answer(&task, message, manner);
                    }
                    task.wait().await;
                }
            };
            select(stop.wait(), answering).await;
        };
        world.kernel.spawn("puppet", Box::pin(running));
        puppet
    }

    pub fn be(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Lets the task go.
    pub fn stop(&self) {
        self.stop.raise();
    }
}

fn answer(task: &Task, message: Message, manner: Manner) {
    let mut response = Response::new(message.id, Outcome::Done);
    if let Request::GetQueueState { queue } = message.request {
        response.queue = queue;
        let known = task.queue_info(queue as u16).unwrap().state;
        response.state = known;
        if manner == Manner::Lost {
            let elsewhere = known.split().wrapping_add(1);
            response.state = vdpa_vduse::protocol::RawState::of_split(elsewhere);
        }
    }
    match manner {
        Manner::Silent => return,
        Manner::Refusing => response.outcome = Outcome::Failed,
        _ => {}
    }
    let told = task.reply(&response.encode());
    if manner == Manner::Twice {
        let again = task.reply(&response.encode());
        assert!(
            told.is_err() || again.is_err(),
            "{message:?} is answered twice"
        );
    }
}

/// The driver: it has the device, and the first queue.
pub struct Driver {
    pub claim: Arc<VdpaClaim>,
    pub attachment: Arc<Attachment>,
    space: Arc<DmaSpace>,
    dma: Arc<dyn DmaAllocator>,
    hold: Arc<DeviceHold>,
    pub ring: Option<Queue<Exchange>>,
    doorbell: Doorbell,
    /// How often it has been interrupted, by the queue and by the configuration.
    pub interrupts: Arc<AtomicU64>,
    pub config_interrupts: Arc<AtomicU64>,
    /// Features of the type that it accepts.
    pub extra: Features,
    packed: bool,
}

impl Driver {
    /// Puts the device on the bus and takes it, up to the address space.
    pub async fn take(world: &World) -> Self {
        let ops = world.control.attach("device").unwrap();
        let device = world.add(ops).await;
        let claim = hold(&world.vdpa, &device).await.unwrap();
        let attachment = claim.attach(Owner::Kernel, Trust::Isolated).unwrap();
        let space = DmaSpace::new(&world.kernel);
        space.attach(Arc::<Attachment>::clone(&attachment)).unwrap();
        Self {
            dma: space.allocator(),
            space,
            attachment,
            hold: DeviceHold::new(),
            ring: None,
            doorbell: claim.doorbell(0).unwrap(),
            claim: Arc::new(claim),
            interrupts: Arc::default(),
            config_interrupts: Arc::default(),
            extra: Features::EMPTY,
            packed: false,
        }
    }

    /// Goes from a reset to `DRIVER_OK`, with the first queue ready.
    pub async fn start(&mut self, packed: bool) -> Result<(), OpError> {
        self.packed = packed;
        let claim = Arc::clone(&self.claim);
        let driver = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        claim.set_status(DeviceStatus::ACKNOWLEDGE).await?;
        claim.set_status(driver).await?;
        claim.set_driver_features(features(packed) | self.extra)?;
        claim.set_status(driver | DeviceStatus::FEATURES_OK).await?;
        let ring_features = RingFeatures::NONE.with_packed(packed);
        let config = QueueConfig {
            size: SIZE,
            align: 1,
            features: ring_features,
        };
        let ring = Queue::new(&config, &self.dma, &self.hold).unwrap();
        let addresses = ring.addresses();
        claim.set_queue_size(0, SIZE)?;
        let address = QueueAddress {
            descriptor: addresses.descriptor,
            driver: addresses.driver,
            device: addresses.device,
        };
        // SAFETY: the ring is that of a `Queue`, held until a reset.
        unsafe { claim.set_queue_address(0, address) }?;
        claim.set_queue_callback(0, Some(counter(&self.interrupts)))?;
        claim.set_config_callback(Some(counter(&self.config_interrupts)))?;
        self.ring = Some(ring);
        self.hold.hold();
        claim.start_queue(0).await?;
        let running = driver | DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK;
        claim.set_status(running).await
    }

    pub async fn reset(&mut self) -> Result<(), OpError> {
        self.claim.reset().await?;
        self.let_go();
        Ok(())
    }

    /// Offers a request whose bytes are all `byte`. False, if there is no room.
    pub fn offer(&mut self, byte: u8) -> bool {
        let Some(ring) = &mut self.ring else {
            return false;
        };
        let mut request = DmaBuffer::new(&self.dma, REQUEST).unwrap();
        request.fill(byte);
        let mut answer = DmaBuffer::new(&self.dma, ANSWER).unwrap();
        answer.fill(UNTOUCHED);
        let exchange = Exchange {
            request: Some(Readable {
                buffer: request,
                len: REQUEST as u32,
            }),
            answer: Some(Writable(answer)),
        };
        if ring.add(exchange).is_err() {
            return false;
        }
        if ring.publish() == Notify::Needed {
            self.doorbell.ring(ring.place());
        }
        true
    }

    /// What has come back: the answer, and how much of it was written.
    pub fn answered(&mut self) -> Option<(Vec<u8>, usize)> {
        let used = self.ring.as_mut()?.take().expect("no task breaks a ring")?;
        let bytes = used.chain.answer.unwrap().0.to_vec();
        Some((bytes, used.written as usize))
    }

    /// Takes all memory away from the device.
    pub fn unmap_all(&self) {
        let ranges: Vec<_> = self
            .attachment
            .with_table(0, |table| {
                table.iter().map(|mapping| mapping.range).collect()
            })
            .unwrap();
        for range in ranges {
            self.attachment.unmap(0, range).unwrap();
        }
    }

    /// Frees the queue with all that was lent by it, as after a reset.
    pub fn let_go(&mut self) {
        self.hold.release();
        self.ring = None;
    }

    pub fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    pub fn config_interrupts(&self) -> u64 {
        self.config_interrupts.load(Ordering::Relaxed)
    }

    pub fn violations(&self) -> u64 {
        let counters = self.claim.queue_statistics(0).unwrap();
        let found = counters
            .iter()
            .find(|(name, _)| name.contains("violations"));
        found.unwrap().1
    }

    /// Gives everything back, whatever the task does.
    pub async fn leave(mut self, world: &World) {
        self.reset().await.expect("a reset waits for no task");
        self.space.detach();
        self.attachment.detach().await.unwrap();
        let Self {
            claim, attachment, ..
        } = self;
        drop(attachment);
        let removed = world.vdpa.unregister(&claim, Removal::Orderly).await;
        assert_eq!(removed, Removed::Clean);
    }
}

fn counter(count: &Arc<AtomicU64>) -> Callback {
    let count = Arc::clone(count);
    Callback::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    })
}
