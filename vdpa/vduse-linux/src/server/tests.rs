//! The messages, with a kernel that lies.

use std::fs;
use std::time::Instant;

use rustix::io::{read, write};
use vduse_protocol::Permission;

use super::*;
use crate::testing::{BASE, Driver, Echo, Kernel, MEMORY};

const DRIVER_OK: u8 = 15;
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that serves a device, and the kernel's end of it.
struct World {
    kernel: Arc<Kernel>,
    messages: OwnedFd,
    echo: Arc<Echo>,
    driver: Driver,
    next: u32,
    program: thread::JoinHandle<Error>,
}

impl World {
    fn new(packed: bool, change: impl FnOnce(&Kernel)) -> Self {
        let kernel = Kernel::new(packed);
        let driver = kernel.drive(true);
        change(&kernel);
        let (device, messages) = kernel.device();
        let echo = Arc::new(Echo::default());
        let options = QueueOptions {
            count: 1,
            size_max: 64,
            chain_max: 4,
        };
        let server = Server::new(device, Created::New, options, None, Arc::clone(&echo) as _);
        let server = server.unwrap();
        Self {
            kernel,
            messages,
            echo,
            driver,
            next: 1,
            program: thread::spawn(move || server.run()),
        }
    }

    fn ask(&mut self, request: Request) -> Response {
        let id = self.next;
        self.send(&Message { id, request }.encode());
        self.answer()
    }

    fn send(&mut self, bytes: &[u8]) {
        self.next += 1;
        write(&self.messages, bytes).unwrap();
    }

    fn answer(&self) -> Response {
        let mut bytes = [0; Response::SIZE];
        assert_eq!(read(&self.messages, &mut bytes), Ok(bytes.len()));
        let response = Response::decode(&bytes).unwrap();
        assert_eq!(response.id, self.next - 1);
        response
    }

    fn start(&mut self) -> Outcome {
        let outcome = self.ask(Request::SetStatus(DRIVER_OK)).outcome;
        self.kernel.lock().started = outcome == Outcome::Done;
        outcome
    }

    /// Waits for the answers to all that was sent.
    fn take(&mut self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.driver.answered.len() < count {
            assert!(Instant::now() < deadline, "{:?}", self.echo);
            thread::sleep(Duration::from_millis(1));
            self.driver.take();
        }
        self.driver.check();
    }

    /// How often this process has the driver's memory mapped.
    fn mappings(&self) -> usize {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let name = self.kernel.memory.name();
        maps.lines().filter(|line| line.contains(&name)).count()
    }

    fn end(self) -> Error {
        drop(self.messages);
        self.program.join().unwrap()
    }
}

#[test]
fn device_starts_step_by_step() {
    for packed in [false, true] {
        let mut world = World::new(packed, |_| {});
        world.driver.send();
        assert_eq!(world.start(), Outcome::Done);
        world.take(1);
        // The order of QEMU's `vduse-blk`, but that a queue is known to be whole before it is kicked.
        assert_eq!(
            world.kernel.lock().calls,
            ["set up", "features", "info", "memory", "kick"]
        );
        assert!(matches!(world.end(), Error::Closed));
    }
}

#[test]
fn state_of_a_queue_is_where_it_stands() {
    let mut world = World::new(false, |_| {});
    world.driver.send();
    assert_eq!(world.start(), Outcome::Done);
    world.take(1);
    let state = world.ask(Request::GetQueueState { queue: 0 });
    assert_eq!((state.outcome, state.state.split()), (Outcome::Done, 1));
    let state = world.ask(Request::GetQueueState { queue: 1 });
    assert_eq!(state.outcome, Outcome::Failed);
    assert_eq!(world.ask(Request::SetStatus(0)).outcome, Outcome::Done);
    // After a reset it is what the kernel says.
    let state = world.ask(Request::GetQueueState { queue: 0 });
    assert_eq!((state.outcome, state.state.split()), (Outcome::Done, 0));
    world.end();
}

#[test]
fn messages_that_mean_nothing_are_answered_and_others_end_the_program() {
    let mut world = World::new(true, |_| {});
    let mut unknown = Message {
        id: 1,
        request: Request::Suspend,
    }
    .encode();
    unknown[0] = 77;
    world.send(&unknown);
    assert_eq!(world.answer().outcome, Outcome::Failed);
    // What was not agreed on.
    assert_eq!(world.ask(Request::Suspend).outcome, Outcome::Failed);
    let ready = Request::SetQueueReady {
        queue: 0,
        ready: true,
    };
    assert_eq!(world.ask(ready).outcome, Outcome::Failed);
    world.send(&[0; 100]);
    let error = world.program.join().unwrap();
    assert!(matches!(error, Error::Decode(_)), "{error:?}");
}

#[test]
fn features_that_the_device_cannot_work_with_are_refused() {
    let mut world = World::new(true, |kernel| kernel.lock().features = 0);
    assert_eq!(world.ask(Request::SetStatus(3)).outcome, Outcome::Done);
    assert_eq!(world.ask(Request::SetStatus(11)).outcome, Outcome::Failed);
    world.end();
}

#[test]
fn memory_that_cannot_be_is_none() {
    let lies: [fn(&Kernel); 5] = [
        // Beyond the end of its file.
        |kernel| kernel.lock().entry.last += 4096,
        |kernel| kernel.lock().entry.offset = MEMORY,
        |kernel| kernel.lock().entry.offset = u64::MAX - 4095,
        // Not what was asked for.
        |kernel| kernel.lock().entry.last = BASE - 1,
        |kernel| kernel.lock().entry.permission = None,
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut world = World::new(true, lie);
        assert_eq!(world.start(), Outcome::Failed, "lie {number}");
        assert_eq!(world.echo.failures.lock().unwrap().len(), 1);
        world.end();
    }
    // Of a file with no length, all of the address space.
    let mut world = World::new(true, |kernel| {
        kernel.lock().entry.start = 0;
        kernel.lock().entry.last = u64::MAX;
    });
    assert_eq!(world.start(), Outcome::Failed);
    world.end();
}

#[test]
fn queue_that_cannot_be_is_refused() {
    let lies: [fn(&Kernel); 4] = [
        |kernel| kernel.lock().queues[0].size = 1 << 20,
        |kernel| kernel.lock().queues[0].size = 0,
        |kernel| kernel.lock().queues[0].device = BASE + MEMORY,
        |kernel| kernel.lock().entry.permission = Some(Permission::Read),
    ];
    for lie in lies {
        let mut world = World::new(true, lie);
        assert_eq!(world.start(), Outcome::Failed);
        world.end();
    }
}

#[test]
fn queue_that_the_driver_breaks_ends_and_the_device_goes_on() {
    let mut world = World::new(false, |_| {});
    let available = world.driver.queue.addresses().driver.0 + 2;
    // More chains than the ring has room for.
    world.kernel.memory.write(available, 0x7fff);
    assert_eq!(world.start(), Outcome::Done);
    let deadline = Instant::now() + PATIENCE;
    while world.echo.failures.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
    let failures = world.echo.failures.lock().unwrap().clone();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("available index"), "{failures:?}");
    assert_eq!(world.ask(Request::SetStatus(0)).outcome, Outcome::Done);
    // What is right again after a reset is served.
    world.kernel.memory.write(available, 0);
    world.driver.send();
    assert_eq!(world.start(), Outcome::Done);
    world.take(1);
    world.end();
}

/// A device that panics over a request is not one whose queue has come to a stand for no reason.
#[test]
fn panic_of_the_device_ends_its_program_with_an_error() {
    let mut world = World::new(true, |_| {});
    world.echo.panics.store(true, Ordering::Relaxed);
    world.driver.send();
    assert_eq!(world.start(), Outcome::Done);
    let error = world.program.join().unwrap();
    let Error::Queue(0, error) = error else {
        panic!("{error}");
    };
    assert!(matches!(*error, QueueError::Panicked), "{error}");
}

#[test]
fn withdrawn_memory_is_unmapped_before_the_answer() {
    let mut world = World::new(true, |_| {});
    world.driver.send();
    assert_eq!(world.mappings(), 1, "the driver's own");
    assert_eq!(world.start(), Outcome::Done);
    world.take(1);
    assert_eq!(world.mappings(), 2);
    let update = |start, last| Request::UpdateIotlb {
        start,
        last,
        address_space: 0,
    };
    // Another range is nothing to this mapping.
    world.ask(update(0, BASE - 1));
    assert_eq!(world.mappings(), 2);
    // The queue's thread may look at its ring once more, and asks the kernel for the memory again.
    let gone = (0..100).any(|_| {
        assert_eq!(world.ask(update(0, u64::MAX)).outcome, Outcome::Done);
        world.mappings() == 1
    });
    assert!(gone);
    world.end();
}

#[test]
fn second_address_space_has_the_second_call() {
    let mut world = World::new(false, |kernel| kernel.lock().entry.address_space = 1);
    let move_to = |group, address_space| Request::SetGroupAddressSpace {
        group,
        address_space,
    };
    assert_eq!(world.ask(move_to(1, 1)).outcome, Outcome::Failed);
    assert_eq!(world.ask(move_to(0, 1)).outcome, Outcome::Done);
    world.driver.send();
    assert_eq!(world.start(), Outcome::Done);
    assert_eq!(world.ask(move_to(0, 0)).outcome, Outcome::Failed);
    world.end();
}

/// A program that takes over what another has served.
fn resume(kernel: &Arc<Kernel>, journal: Option<Journal>) -> Result<(Server, OwnedFd), Error> {
    let (device, messages) = kernel.device();
    let options = QueueOptions {
        count: 1,
        size_max: 64,
        chain_max: 4,
    };
    let echo = Arc::new(Echo::default());
    let server = Server::new(device, Created::Existing, options, journal, echo)?;
    Ok((server, messages))
}

fn journal(folder: &tempfile::TempDir) -> Journal {
    Journal::open(&folder.path().join("journal"), "device", 1).unwrap()
}

#[test]
fn started_queue_whose_note_is_lost_is_found_by_its_ring_or_refused() {
    for packed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let kernel = Kernel::new(packed);
        let mut driver = kernel.drive(false);
        driver.send();
        kernel.lock().started = true;
        match resume(&kernel, Some(journal(&folder))) {
            Ok((_server, _messages)) => {
                assert!(!packed);
                let deadline = Instant::now() + PATIENCE;
                while driver.answered.is_empty() {
                    assert!(Instant::now() < deadline, "nobody serves the queue");
                    thread::sleep(Duration::from_millis(1));
                    driver.take();
                }
            }
            Err(Error::Queue(0, error)) => {
                assert!(packed && matches!(*error, QueueError::NoJournal), "{error}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// As the queue that the driver breaks later.
#[test]
fn queue_that_cannot_go_on_is_told_of_and_the_others_do() {
    let kernel = Kernel::new(false);
    let mut drivers = [kernel.drive(false), kernel.drive(false)];
    kernel.lock().queues[0].device = BASE + MEMORY;
    kernel.lock().started = true;
    drivers[1].send();
    let (device, _messages) = kernel.device();
    let options = QueueOptions {
        count: 2,
        size_max: 64,
        chain_max: 4,
    };
    let echo = Arc::new(Echo::default());
    let service = Arc::clone(&echo) as _;
    let _server = Server::new(device, Created::Existing, options, None, service).unwrap();
    assert_eq!(echo.failures.lock().unwrap().len(), 1);
    let deadline = Instant::now() + PATIENCE;
    while drivers[1].answered.is_empty() {
        assert!(Instant::now() < deadline, "nobody serves the other queue");
        thread::sleep(Duration::from_millis(1));
        drivers[1].take();
    }
}

#[test]
fn queue_that_the_driver_has_not_started_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = Kernel::new(true);
    let _driver = kernel.drive(false);
    let (server, _messages) = resume(&kernel, Some(journal(&folder))).unwrap();
    assert!(!server.started);
}

#[test]
fn note_of_a_queue_that_is_not_in_use_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = Kernel::new(true);
    let _driver = kernel.drive(false);
    kernel.lock().queues[0].ready = false;
    let stale = Arc::new(journal(&folder));
    let place = crate::journal::Place {
        index: 3,
        wrap: false,
    };
    stale.queue(0).unwrap().stand(place);
    drop(stale);
    let (server, _messages) = resume(&kernel, Some(journal(&folder))).unwrap();
    let note = server.journal.as_ref().unwrap().queue(0).unwrap().read();
    assert_eq!(note, None);
}

#[test]
fn kernel_says_how_many_queues_a_device_has() {
    let kernel = Kernel::new(true);
    let _drivers = [kernel.drive(false), kernel.drive(false)];
    assert_eq!(kernel.device().0.queue_count().unwrap(), 2);
}
