//! Random work of a driver and a device on one queue, with stops in between, compared with lists of
//! what went in and out.

use std::collections::VecDeque;

use crate::common::*;
use proptest::prelude::*;
use virtq::device::{Chain, DeviceConfig, DeviceQueue};
use virtq::{Pending, RingFeatures};

#[derive(Clone, Debug)]
enum Step {
    /// The driver adds a chain of these readable and writable lengths.
    Add {
        readable: Vec<u32>,
        writable: Vec<u32>,
        indirect: bool,
    },
    Publish,
    /// The device takes a chain.
    Pop,
    /// The device completes the chain at this place in its hands.
    Complete {
        which: usize,
    },
    Notify,
    /// The driver takes everything that is used, and waits for more or does not.
    Take {
        wait: bool,
    },
    /// The device falls asleep.
    Sleep,
    /// The device finishes what it has, and another one goes on from its state.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let lengths = || prop::collection::vec(0u32..150, 0..4);
    prop_oneof![
        5 => (lengths(), lengths(), any::<bool>()).prop_map(|(readable, writable, indirect)| {
            Step::Add { readable, writable, indirect }
        }),
        3 => Just(Step::Publish),
        5 => Just(Step::Pop),
        5 => any::<usize>().prop_map(|which| Step::Complete { which }),
        3 => Just(Step::Notify),
        3 => any::<bool>().prop_map(|wait| Step::Take { wait }),
        1 => Just(Step::Sleep),
        1 => Just(Step::Restart),
    ]
}

/// A chain as the driver made it.
#[derive(Clone, Debug)]
struct Request {
    id: u16,
    text: Vec<u8>,
    room: Vec<Buffer>,
    /// What the device has written.
    answer: Vec<u8>,
}

struct Model {
    world: World,
    driver: Driver,
    queue: DeviceQueue<SharedMemory>,
    config: DeviceConfig,
    serial: u8,
    added: VecDeque<Request>,
    published: VecDeque<Request>,
    with_device: Vec<(Chain, Request)>,
    /// With `VIRTIO_F_IN_ORDER`: completed, and waiting for those before.
    early: Vec<Request>,
    completed: VecDeque<Request>,
    used: VecDeque<Request>,
    /// What a side was told it need not look for.
    device_sleeps: bool,
    driver_sleeps: bool,
    /// The ids of chains in the order in which they were taken.
    order: VecDeque<u16>,
}

impl Model {
    fn new(world: World, size: u16, features: RingFeatures) -> Self {
        let driver = Driver::new(&world, size, features);
        let config = DeviceConfig {
            chain_max: size.max(6),
            ..config(&driver)
        };
        let queue = DeviceQueue::new(&config, world.memory()).expect("a usable configuration");
        Self {
            world,
            driver,
            queue,
            config,
            serial: 0,
            added: VecDeque::new(),
            published: VecDeque::new(),
            with_device: Vec::new(),
            early: Vec::new(),
            completed: VecDeque::new(),
            used: VecDeque::new(),
            device_sleeps: false,
            driver_sleeps: false,
            order: VecDeque::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Add {
                readable,
                writable,
                indirect,
            } => self.add(&readable, &writable, indirect),
            Step::Publish => self.publish(),
            Step::Pop => self.pop(),
            Step::Complete { which } if !self.with_device.is_empty() => {
                self.complete(which % self.with_device.len());
            }
            Step::Complete { .. } => {}
            Step::Notify => self.notify(),
            Step::Take { wait } => self.take(wait),
            Step::Sleep => self.sleep(),
            Step::Restart => self.restart(),
        }
        assert_eq!(usize::from(self.queue.in_flight()), self.with_device.len());
    }

    fn add(&mut self, readable: &[u32], writable: &[u32], indirect: bool) {
        let len: u32 = readable.iter().chain(writable).sum();
        if readable.len() + writable.len() == 0 || self.world.used() + u64::from(len) + 0x100 > LEN
        {
            return;
        }
        let mut text = Vec::new();
        let mut buffers = Vec::new();
        for &len in readable {
            self.serial = self.serial.wrapping_add(1);
            let part = vec![self.serial; len as usize];
            buffers.push(Buffer::with(&self.world, &part));
            text.extend(part);
        }
        let room: Vec<_> = writable
            .iter()
            .map(|&len| Buffer::room(&self.world, len))
            .collect();
        buffers.extend(&room);
        let indirect = indirect && self.driver.features().indirect;
        let offer = if indirect {
            Offer::Indirect
        } else {
            Offer::Direct
        };
        if let Some(id) = self.driver.add(&self.world, &buffers, offer) {
            self.added.push_back(Request {
                id,
                text,
                room,
                answer: Vec::new(),
            });
        }
    }

    fn publish(&mut self) {
        let fresh = !self.added.is_empty();
        self.published.append(&mut self.added);
        let notify = self.driver.publish(&self.world);
        if fresh && self.device_sleeps {
            assert!(notify, "the device sleeps and nobody wakes it");
            self.device_sleeps = false;
        }
    }

    fn pop(&mut self) {
        let chain = self.queue.pop().expect("the driver is honest");
        assert_eq!(chain.is_some(), !self.published.is_empty());
        let (Some(chain), Some(mut request)) = (chain, self.published.pop_front()) else {
            return;
        };
        assert_eq!(chain.id(), request.id);
        assert_eq!(pull_all(&self.queue, &chain), request.text);
        let room: u32 = request.room.iter().map(|buffer| buffer.len).sum();
        assert_eq!(chain.writable_len(), u64::from(room));
        // The answer starts from the front, in two parts.
        self.serial = self.serial.wrapping_add(1);
        request.answer = vec![self.serial; room as usize * 2 / 3];
        let (first, second) = request.answer.split_at(request.answer.len() / 2);
        assert_eq!(self.queue.push(&chain, 0, first), Ok(first.len()));
        assert_eq!(
            self.queue.push(&chain, first.len() as u64, second),
            Ok(second.len())
        );
        self.order.push_back(request.id);
        self.with_device.push((chain, request));
    }

    fn complete(&mut self, which: usize) {
        let (chain, request) = self.with_device.swap_remove(which);
        let written = u32::try_from(request.answer.len()).expect("a short answer");
        self.queue
            .complete(chain, written)
            .expect("the ring is there");
        if !self.driver.features().in_order {
            self.completed.push_back(request);
            return;
        }
        self.early.push(request);
        while let Some(&due) = self.order.front()
            && let Some(place) = self.early.iter().position(|request| request.id == due)
        {
            self.completed.push_back(self.early.swap_remove(place));
            self.order.pop_front();
        }
    }

    fn notify(&mut self) {
        let fresh = !self.completed.is_empty();
        self.used.append(&mut self.completed);
        let notify = self.queue.notify();
        if fresh && self.driver_sleeps {
            assert!(notify, "the driver sleeps and nobody wakes it");
            self.driver_sleeps = false;
        }
        assert!(fresh || !notify, "nothing was completed");
    }

    fn take(&mut self, wait: bool) {
        while let Some((id, written)) = self.driver.take(&self.world) {
            let request = self.used.pop_front().expect("nothing more was completed");
            assert_eq!((id, written as usize), (request.id, request.answer.len()));
            let room = request.room.iter();
            let bytes: Vec<u8> = room
                .flat_map(|buffer| self.world.read(buffer.addr, buffer.len as usize))
                .collect();
            assert_eq!(bytes[..request.answer.len()], request.answer);
            assert!(bytes[request.answer.len()..].iter().all(|&byte| byte == 0));
        }
        assert!(self.used.is_empty(), "a used chain was lost");
        self.driver_sleeps = wait;
        if wait {
            assert!(!self.driver.enable_interrupts(&self.world));
        } else {
            self.driver.disable_interrupts(&self.world);
        }
    }

    fn sleep(&mut self) {
        let pending = self
            .queue
            .enable_notifications()
            .expect("the driver is honest");
        assert_eq!(pending == Pending::Yes, !self.published.is_empty());
        self.device_sleeps = pending == Pending::No;
        if pending == Pending::Yes {
            self.queue
                .disable_notifications()
                .expect("the driver is honest");
        }
    }

    fn restart(&mut self) {
        if !self.with_device.is_empty() {
            assert_eq!(self.queue.state(), None, "chains are in flight");
        }
        while !self.with_device.is_empty() {
            self.complete(0);
        }
        if !self.completed.is_empty() {
            assert_eq!(self.queue.state(), None, "completions are not published");
        }
        self.notify();
        let state = self.queue.state().expect("nothing is in flight");
        let config = DeviceConfig {
            state,
            ..self.config
        };
        self.queue = DeviceQueue::new(&config, self.world.memory()).expect("a good state");
        // The next device finds what the last one asked for, and says what it wants itself.
        self.sleep();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_mixed_up(
        packed: bool,
        translated: bool,
        size in 1u16..20,
        event_idx: bool,
        indirect: bool,
        in_order: bool,
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let world = if translated { World::translated() } else { World::direct() };
        let features = RingFeatures::NONE.with_packed(packed).with_event_idx(event_idx).with_indirect(indirect).with_in_order(in_order);
        let size = if packed { size } else { size.next_power_of_two() };
        let mut model = Model::new(world, size, features);
        for step in steps {
            model.step(step);
        }
        model.publish();
        while !model.published.is_empty() {
            model.pop();
        }
        model.restart();
        model.take(true);
        let counters = model.queue.counters();
        prop_assert_eq!(counters.popped, counters.completed);
    }

    /// A driver that writes anything anywhere into the rings gets an error or a chain, and the
    /// device touches nothing that is not the driver's.
    #[test]
    fn a_driver_that_writes_noise_breaks_nothing_but_its_queue(
        packed: bool,
        indirect: bool,
        noise in prop::collection::vec((any::<u16>(), prop_oneof![0u16..10, any::<u16>()]), 1..300),
    ) {
        let world = World::translated();
        let features = RingFeatures::NONE.with_packed(packed).with_indirect(indirect).with_event_idx(true).with_in_order(indirect);
        let driver = Driver::new(&world, 8, features);
        let mut queue = device(&driver, &world);
        let addresses = driver.addresses();
        let end = world.used();
        let ring = addresses.descriptor.0;
        for (place, value) in noise {
            let offset = u64::from(place) % (end / 2) * 2;
            world.write_u16(ring + offset, value);
            // A way in, more often than by chance.
            if packed {
                world.write_u16(ring + u64::from(place % 8) * 16 + 14, 0x80 | value & 7);
            } else {
                world.write_u16(addresses.driver.0 + 2, place % 16);
            }
            while let Ok(Some(chain)) = queue.pop() {
                let _ = queue.pull(&chain, 0, &mut [0; 256]);
                let _ = queue.push(&chain, 0, &[0xff; 256]);
                queue.complete(chain, 256).expect("the ring is mapped");
            }
            if let Some(chain) = queue.take_abandoned() {
                queue.complete(chain, 0).expect("the ring is mapped");
            }
            let _ = queue.notify();
            let _ = queue.enable_notifications();
            if queue.broken().is_some() {
                queue = device(&driver, &world);
            }
        }
    }
}
