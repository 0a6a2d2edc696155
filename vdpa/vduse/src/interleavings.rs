//! The hand-over between a driver and its task, in every order in which their threads can come to
//! the device's lock.
//!
//! Wakers, events and the clock are not loom's: each of their calls counts as one step, as if it
//! could not be interrupted. Nor are the rings, which belong to whoever has the lock.

use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};

use embassy_futures::join::join;
use loom::model::Builder;
use loom::thread;
use vdpa::Platform;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{Backing, IncrementalMap, OpError, QueueAddress};
use vdpa::platform::Callback;
use vdpa::testing::FakePlatform;
use vduse_protocol::{DeviceConfig, Message, Outcome, QueueSetup, Request, Response};
use virtio::DeviceStatus;
use virtq::{
    Arena, DeviceHold, DeviceMemory, DmaAddr, DmaAllocator, DmaBuffer, Exchange, Queue,
    QueueConfig, Readable, RingFeatures, SharedMemory, Writable,
};

use super::device::{Device, required};
use super::error::TaskError;
use super::options::Options;
use super::state::Motion;
use super::task::Task;

const ARENA: u64 = 1 << 40;
const ARENA_LEN: usize = 1 << 14;

/// Tries every order with so many changes of thread that nobody asked for.
fn explore(changes: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(changes);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Runs a future. Others go on while it waits.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }
    let mut future = pin!(future);
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::yield_now();
        while !flag.0.swap(false, Ordering::Acquire) {
            thread::yield_now();
        }
    }
}

/// A device of one queue, which has been attached, and its task.
fn device() -> (Arc<FakePlatform>, Arc<Device>, Task) {
    let platform = FakePlatform::new();
    let kernel = Arc::clone(&platform) as Arc<dyn Platform>;
    let config = DeviceConfig {
        name: "device".into(),
        vendor_id: 0,
        device_id: 1,
        features: u64::try_from(required().bits()).unwrap(),
        queues: 1,
        queue_align: 1,
        groups: 1,
        address_spaces: 1,
        config: vec![0; 4],
    };
    let device = Device::new(&config, Options::default(), &kernel).unwrap();
    let task = Task::open(Arc::clone(&device)).unwrap();
    let setup = QueueSetup {
        index: 0,
        size_max: 2,
        group: 0,
    };
    task.set_up_queue(setup).unwrap();
    device.attach().unwrap();
    (platform, device, task)
}

/// Answers the next message.
fn serve(task: &Task) -> Result<(), TaskError> {
    block_on(async {
        loop {
            if let Some(bytes) = task.receive()? {
                let message = Message::decode(&bytes).unwrap();
                let response = Response::new(message.id, Outcome::Done);
                return task.reply(&response.encode());
            }
            task.wait().await;
        }
    })
}

/// The driver has started the device.
fn start(device: &Device) {
    device.with(|state| {
        state.features = required();
        state.status = DeviceStatus::DRIVER_OK;
    });
}

#[test]
fn an_answer_wakes_the_one_who_has_asked() {
    explore(3, || {
        let (_platform, device, task) = device();
        let asking = thread::spawn(move || block_on(device.ask(Request::Suspend)));
        assert_eq!(serve(&task), Ok(()));
        let answer = asking.join().unwrap().unwrap();
        assert_eq!(answer.outcome, Outcome::Done);
    });
}

#[test]
fn two_who_ask_get_an_answer_each() {
    explore(2, || {
        let (_platform, device, task) = device();
        let asking = thread::spawn(move || {
            let (first, second) = (Request::Suspend, Request::SetStatus(0));
            block_on(join(device.ask(first), device.ask(second)))
        });
        assert_eq!(serve(&task), Ok(()));
        assert_eq!(serve(&task), Ok(()));
        let (first, second) = asking.join().unwrap();
        assert_ne!(first.unwrap().id, second.unwrap().id);
    });
}

#[test]
fn at_the_deadline_there_is_an_answer_or_the_device_is_broken() {
    explore(2, || {
        let (platform, device, task) = device();
        let asked = Arc::clone(&device);
        let asking = thread::spawn(move || {
            let answer = block_on(asked.ask(Request::Suspend));
            (
                answer.map(|answer| answer.outcome),
                asked.with(|state| state.broken),
            )
        });
        let time = Arc::clone(&platform);
        let passing = thread::spawn(move || {
            // Whoever has not asked yet has all the time.
            time.advance(Options::default().deadline);
        });
        let told = serve(&task);
        passing.join().unwrap();
        match asking.join().unwrap() {
            (Ok(outcome), broken) => {
                assert_eq!((outcome, broken, told), (Outcome::Done, false, Ok(())));
            }
            (Err(OpError::Timeout), true) => {
                assert_eq!(task.receive(), Err(TaskError::Broken));
            }
            (answer, broken) => panic!("{answer:?}, broken: {broken}"),
        }
        device.with(|state| assert!(state.mailbox.is_empty(), "a message is left"));
    });
}

#[test]
fn the_next_task_gets_what_a_dead_one_has_not_answered() {
    explore(3, || {
        let (_platform, device, task) = device();
        let asked = Arc::clone(&device);
        let asking = thread::spawn(move || block_on(asked.ask(Request::Suspend)));
        // It has read the message when it dies, or has not.
        let _ = task.receive();
        drop(task);
        let task = Task::open(device).unwrap();
        assert_eq!(serve(&task), Ok(()));
        assert!(asking.join().unwrap().is_ok());
        assert_eq!(task.receive(), Ok(None), "it is asked once");
    });
}

#[test]
fn a_task_that_comes_as_the_time_ends_has_a_device_or_a_broken_one_for_good() {
    explore(3, || {
        let (platform, device, task) = device();
        start(&device);
        drop(task);
        let time = Arc::clone(&platform);
        let passing = thread::spawn(move || {
            time.run_until_stalled();
            time.advance(Options::default().deadline);
            time.run_until_stalled();
        });
        let task = Task::open(Arc::clone(&device)).unwrap();
        let first = task.receive();
        passing.join().unwrap();
        assert_eq!(
            task.receive(),
            first,
            "it breaks under a task that has come"
        );
        assert!(matches!(first, Ok(None) | Err(TaskError::Broken)));
    });
}

#[test]
fn after_a_reset_no_callback_is_under_way() {
    explore(3, || {
        let (_platform, device, task) = device();
        start(&device);
        let gone = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&gone);
        let callback = Callback::new(move || {
            assert!(!seen.load(Ordering::SeqCst), "the driver has gone");
            thread::yield_now();
            assert!(
                !seen.load(Ordering::SeqCst),
                "the driver has gone meanwhile"
            );
        });
        device.with(|state| state.config_callback = Some(callback));
        let injecting = thread::spawn(move || task.inject_config_interrupt());
        device.with(super::state::State::reset);
        block_on(device.quiet());
        gone.store(true, Ordering::SeqCst);
        let injected = injecting.join().unwrap();
        assert!(matches!(injected, Ok(()) | Err(TaskError::NotRunning)));
    });
}

/// The driver's end of the queue, with one request in it.
struct Driver {
    ring: Queue<Exchange>,
    interrupts: Arc<AtomicUsize>,
}

impl Driver {
    fn new(platform: &FakePlatform, device: &Device) -> Self {
        let dma = Arc::clone(platform.heap()) as Arc<dyn DmaAllocator>;
        let memory = SharedMemory::new(&dma, ARENA_LEN).unwrap();
        let backing = Backing {
            // SAFETY: the device's ring is that of a `Queue`, which outlives the model's threads.
            memory: unsafe { DeviceMemory::lent(&memory) },
            offset: 0,
        };
        let range = IovaRange::new(ARENA, memory.len()).unwrap();
        let mapped = device.spaces.map(0, range, Permission::all(), backing);
        mapped.unwrap();
        let arena: Arc<dyn DmaAllocator> = Arena::new(memory, DmaAddr(ARENA)).unwrap();
        let config = QueueConfig {
            size: 2,
            align: 1,
            features: RingFeatures::NONE,
        };
        let mut ring = Queue::new(&config, &arena, &DeviceHold::new()).unwrap();
        let exchange = Exchange {
            request: Some(Readable {
                buffer: DmaBuffer::new(&arena, 8).unwrap(),
                len: 8,
            }),
            answer: Some(Writable(DmaBuffer::new(&arena, 8).unwrap())),
        };
        assert!(ring.add(exchange).is_ok());
        let _ = ring.publish();
        let interrupts = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&interrupts);
        let callback = Callback::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        start(device);
        device.with(|state| {
            let addresses = ring.addresses();
            state.virtqueues[0].address = Some(QueueAddress {
                descriptor: addresses.descriptor,
                driver: addresses.driver,
                device: addresses.device,
            });
            state.virtqueues[0].callback = Some(callback);
            state.open(0, &device.spaces).unwrap();
        });
        Self { ring, interrupts }
    }

    /// The request is answered by now or will be, once.
    fn check(mut self, device: &Device, task: &Task, answered: bool) {
        if answered {
            assert_ne!(self.interrupts.load(Ordering::SeqCst), 0, "nobody tells");
        }
        assert_eq!(self.ring.take().unwrap().is_some(), answered);
        device.with(|state| state.motion = Motion::Running);
        let again = task.take(0).unwrap();
        assert_eq!(again.is_some(), !answered, "lost, or there twice");
        if let Some(job) = again {
            task.complete(job).unwrap();
            task.flush(0).unwrap();
            assert!(self.ring.take().unwrap().is_some());
        }
        assert!(self.ring.take().unwrap().is_none());
    }
}

/// As the bus suspends a device whose task has answered.
fn suspend(device: &Device) {
    let at_rest = device.with_signals(|state, signals| {
        state.motion = Motion::Suspended;
        state.come_to_rest(signals)
    });
    assert!(at_rest, "the only request can be put back");
    block_on(device.quiet());
}

#[test]
fn a_request_at_a_suspension_is_answered_or_put_back() {
    explore(3, || {
        let (platform, device, task) = device();
        let driver = Driver::new(&platform, &device);
        let working = thread::spawn(move || {
            let job = task.take(0).unwrap();
            let answered = job.map(|job| task.complete(job));
            task.flush(0).unwrap();
            (task, answered == Some(Ok(())))
        });
        suspend(&device);
        let (task, answered) = working.join().unwrap();
        driver.check(&device, &task, answered);
    });
}

#[test]
fn a_request_of_a_task_that_dies_at_a_suspension_is_there_once() {
    explore(3, || {
        let (platform, device, task) = device();
        let driver = Driver::new(&platform, &device);
        let dying = thread::spawn(move || {
            let _ = task.take(0);
            drop(task);
        });
        suspend(&device);
        dying.join().unwrap();
        let task = Task::open(Arc::clone(&device)).unwrap();
        driver.check(&device, &task, false);
    });
}
