//! Programs die between any two of their steps, and the next ones find all that is to do.

use proptest::prelude::*;

use super::*;
use crate::journal::Journal;
use crate::testing::{Driver, Echo, Kernel};

/// A program, and what it stands on.
struct World {
    kernel: Arc<Kernel>,
    device: Arc<DeviceFile>,
    journal: Arc<Journal>,
    echo: Echo,
    driver: Driver,
    queue: Queue,
    _folder: tempfile::TempDir,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(u8),
    Take,
    Turn,
    /// Dies with so many chains served.
    DieServing,
    /// Dies while a batch is noted.
    DieNoting,
    /// Dies after a batch was noted, with so many of its numbers written to the ring.
    DieGivingBack(u8),
    /// Dies when the driver has been shown a batch; the driver may act before the next is there.
    DieUnsettled(u8),
}

impl World {
    fn new(packed: bool, indirect: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kernel = Kernel::new(packed);
        let driver = kernel.drive(indirect);
        let journal = Arc::new(Journal::open(&folder.path().join("journal"), "queue", 1).unwrap());
        // The kernel says when the driver has started the device.
        kernel.lock().started = true;
        let device = Arc::new(kernel.device().0);
        let queue = start(&kernel, &device, &journal, Origin::Driver).unwrap();
        Self {
            kernel,
            device,
            journal,
            echo: Echo::default(),
            driver,
            queue,
            _folder: folder,
        }
    }

    fn die(&mut self) {
        self.queue = start(&self.kernel, &self.device, &self.journal, Origin::Ring).unwrap();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send(count) => (0..count).for_each(|_| self.driver.send()),
            Step::Take => self.driver.take(),
            Step::Turn => {
                self.queue.turn(0, &self.device, &self.echo).unwrap();
            }
            Step::DieServing => {
                self.queue.take(0, &self.echo).unwrap();
                self.die();
            }
            Step::DieNoting => {
                self.queue.take(0, &self.echo).unwrap();
                let done = self.queue.served.iter().map(|(chain, written)| Done {
                    id: chain.id(),
                    descriptors: chain.descriptors(),
                    written: *written,
                });
                let batch: Vec<Done> = done.collect();
                if let Some(journal) = &self.queue.journal {
                    journal.fill(&batch);
                }
                self.die();
            }
            Step::DieGivingBack(writes) => {
                self.queue.take(0, &self.echo).unwrap();
                self.queue.note();
                if self.queue.features.packed {
                    self.write_some(writes.into());
                } else {
                    // Used elements count with the index alone.
                    for (chain, written) in self.queue.served.drain(..) {
                        self.queue.ring.complete(chain, written).unwrap();
                    }
                }
                self.die();
            }
            Step::DieUnsettled(more) => {
                self.queue.take(0, &self.echo).unwrap();
                self.queue.note();
                self.queue.publish().unwrap();
                self.driver.take();
                (0..more).for_each(|_| self.driver.send());
                self.die();
            }
        }
    }

    /// What of a batch is in a packed ring when a program dies: of each descriptor its length and id,
    /// then its flags, and those of the first last (VIRTIO 1.2, 2.8.6).
    fn write_some(&mut self, writes: usize) {
        let info = self.kernel.lock().queues[0];
        let memory = QueueMemory::new(&Space::new(Arc::clone(&self.device), 0));
        let mut place = self.queue.place;
        let mut left = writes;
        for (number, done) in self.queue.batch.iter().enumerate() {
            let at = info.descriptor + 16 * u64::from(place.index);
            if left > 0 {
                memory.store32(at + 8, done.written).unwrap();
                memory.store16(at + 12, done.id).unwrap();
            }
            if left > 1 && number > 0 {
                let lap = if place.wrap { 0x8080 } else { 0 };
                let wrote = if done.written > 0 { 2 } else { 0 };
                memory.store16(at + 14, lap | wrote).unwrap();
            }
            left = left.saturating_sub(2);
            place = place.after(done.descriptors, self.queue.size);
        }
    }

    /// Everything comes back.
    fn finish(mut self) {
        while self.queue.turn(0, &self.device, &self.echo).unwrap() == Turn::More {}
        self.driver.take();
        self.driver.check();
    }
}

fn start(
    kernel: &Kernel,
    device: &Arc<DeviceFile>,
    journal: &Arc<Journal>,
    origin: Origin,
) -> Result<Queue, QueueError> {
    let (info, features) = {
        let state = kernel.lock();
        (state.queues[0], state.features)
    };
    Queue::new(Recipe {
        info: &info,
        features,
        chain_max: 4,
        space: &Space::new(Arc::clone(device), 0),
        journal: journal.queue(0),
        origin,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..6_u8).prop_map(Step::Send),
        Just(Step::Take),
        Just(Step::Turn),
        Just(Step::DieServing),
        Just(Step::DieNoting),
        (0..16_u8).prop_map(Step::DieGivingBack),
        (0..6_u8).prop_map(Step::DieUnsettled),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn no_request_is_lost_or_answered_twice(
        packed: bool,
        indirect: bool,
        steps in steps(),
    ) {
        let mut world = World::new(packed, indirect);
        for step in steps {
            world.step(step);
        }
        world.finish();
    }

    #[test]
    fn journal_of_any_bytes_ends_in_an_error_at_worst(word: u64, entry: u64) {
        let world = World::new(true, false);
        let path = world._folder.path().join("journal");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[264..272].copy_from_slice(&word.to_ne_bytes());
        bytes[272..280].copy_from_slice(&entry.to_ne_bytes());
        std::fs::write(&path, bytes).unwrap();
        let _ = start(&world.kernel, &world.device, &world.journal, Origin::Ring);
    }
}

#[test]
fn packed_queue_without_a_note_is_refused() {
    let world = World::new(true, false);
    world.journal.clear();
    let refused = start(&world.kernel, &world.device, &world.journal, Origin::Ring);
    assert!(matches!(refused, Err(QueueError::NoJournal)));
}

#[test]
fn journal_of_another_layout_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    std::fs::write(&path, vec![0xff; 4096]).unwrap();
    let journal = Arc::new(Journal::open(&path, "queue", 2).unwrap());
    assert!(journal.queue(0).unwrap().read().is_none());
    assert!(journal.queue(2).is_none());
}

#[test]
fn interrupt_that_comes_too_early_is_tried_again() {
    let mut world = World::new(true, true);
    world.kernel.lock().started = false;
    world.driver.send();
    let turn = |world: &mut World| world.queue.turn(0, &world.device, &world.echo).unwrap();
    assert_eq!(turn(&mut world), Turn::Later);
    world.kernel.lock().started = true;
    assert_eq!(turn(&mut world), Turn::Idle);
    assert_eq!(world.kernel.lock().interrupts, 1);
    world.finish();
}

#[test]
fn journal_keeps_queues_that_a_program_does_not_know_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let open = |queues| Arc::new(Journal::open(&path, "queue", queues).unwrap());
    let place = Place {
        index: 5,
        wrap: true,
    };
    open(2).queue(1).unwrap().stand(place);
    drop(open(1));
    assert_eq!(open(2).queue(1).unwrap().read(), Some((place, Vec::new())));
}

#[test]
fn journal_has_one_program_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let first = Journal::open(&path, "queue", 1).unwrap();
    let second = Journal::open(&path, "queue", 1).unwrap_err().to_string();
    assert!(second.contains("another program"), "{second}");
    drop(first);
    assert!(Journal::open(&path, "queue", 1).is_ok());
}

/// Notes of one device are no business of another, whichever of its queues they are of.
#[test]
fn journal_of_another_device_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let open = |name, queues| Arc::new(Journal::open(&path, name, queues).unwrap());
    let place = Place {
        index: 5,
        wrap: true,
    };
    let first = open("disk0", 2);
    (0..2).for_each(|queue| first.queue(queue).unwrap().stand(place));
    drop(first);
    assert!(open("disk0", 2).queue(0).unwrap().read().is_some());
    assert_eq!(open("disk", 1).queue(0).unwrap().read(), None);
    assert_eq!(open("disk", 2).queue(1).unwrap().read(), None);
    assert_eq!(open("disk0", 2).queue(0).unwrap().read(), None);
}
