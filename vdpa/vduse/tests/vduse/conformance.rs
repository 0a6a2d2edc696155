//! What every parent must do, devices of tasks do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use vdpa::conformance::{Outcome, Request, Service, Subject, run};
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use vdpa::testing::FakePlatform;
use vdpa::{Platform, VdpaOps};
use vdpa_vduse::protocol::{ApiVersion, DeviceConfig, ProtocolFeatures};
use vdpa_vduse::{Control, Options, Task, serve};
use virtq::Event;

use crate::disk::RamDisk;
use crate::echo::{self, Echo};
use crate::mirror::{self, Mirror};

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Disk,
    Card,
    /// A card with an address space for each queue.
    SplitCard,
    /// A device of a type that the suite does not know, and how much too long its answers are.
    Mirror(i8),
}

/// A device is destroyed and made again for each check.
struct Machine {
    platform: Arc<FakePlatform>,
    control: Arc<Control>,
    kind: Kind,
    options: Options,
    stop: Mutex<Arc<Event>>,
    latest: Mutex<Option<Arc<Task>>>,
    /// How many devices have been made.
    made: AtomicUsize,
}

impl Machine {
    fn new(kind: Kind, options: Options) -> Self {
        let platform = FakePlatform::new();
        Self {
            control: Control::new(&(Arc::clone(&platform) as Arc<dyn Platform>)),
            platform,
            kind,
            options,
            stop: Mutex::default(),
            latest: Mutex::default(),
            made: AtomicUsize::new(0),
        }
    }

    fn config(&self, name: &str) -> DeviceConfig {
        match self.kind {
            Kind::Disk => RamDisk::new([0; 1 << 15], 2).config(name),
            Kind::Card => echo::config(name, 1),
            Kind::SplitCard => echo::config(name, 2),
            Kind::Mirror(_) => mirror::config(name),
        }
    }

    /// Ends the latest task, and destroys all devices.
    fn end(&self) {
        self.stop.lock().unwrap().raise();
        self.latest.lock().unwrap().take();
        self.platform.run_until_stalled();
        for number in 0..self.made.load(Ordering::Relaxed) {
            let name = number.to_string();
            self.control.destroy(&name).expect(&name);
        }
    }

    fn spawn(&self, task: Task) {
        let task = Arc::new(task);
        *self.latest.lock().unwrap() = Some(Arc::clone(&task));
        let stop = Arc::<Event>::default();
        *self.stop.lock().unwrap() = Arc::clone(&stop);
        let kind = self.kind;
        let running = async move {
            let serving = async {
                match kind {
                    Kind::Disk => serve(&task, &mut RamDisk::new([0; 1 << 15], 2)).await,
                    Kind::Card | Kind::SplitCard => serve(&task, &mut Echo::default()).await,
                    Kind::Mirror(surplus) => serve(&task, &mut Mirror { surplus }).await,
                }
            };
            embassy_futures::select::select(serving, stop.wait()).await;
        };
        self.platform.spawn("device", Box::pin(running));
    }
}

impl Subject for Machine {
    fn name(&self) -> &str {
        "vduse"
    }

    fn device_type(&self) -> u32 {
        self.config("").device_id
    }

    fn abilities(&self) -> Abilities {
        let mut abilities = Abilities::QUEUE_STATE | Abilities::PERSISTENT_MAPS;
        if self.options.features.contains(ProtocolFeatures::SUSPEND) {
            abilities |= Abilities::SUSPEND | Abilities::RESUME;
        }
        if self
            .options
            .features
            .contains(ProtocolFeatures::QUEUE_READY)
        {
            abilities |= Abilities::ENABLE_AFTER_DRIVER_OK;
        }
        abilities
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as Arc<dyn Platform>
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        Box::pin(async {
            self.stop.lock().unwrap().raise();
            let name = self.made.fetch_add(1, Ordering::Relaxed).to_string();
            let config = self.config(&name);
            self.control.create(&config, self.options).unwrap();
            let task = self.control.open(&name).unwrap();
            match self.kind {
                Kind::Disk => RamDisk::new([0; 1 << 15], 2).set_up(&task).unwrap(),
                Kind::Card => echo::set_up(&task, 1),
                Kind::SplitCard => echo::set_up(&task, 2),
                Kind::Mirror(_) => mirror::set_up(&task),
            }
            self.spawn(task);
            Ok(self.control.attach(&name).unwrap())
        })
    }

    fn service(&self) -> Service {
        match self.kind {
            Kind::Disk => Service::Blk,
            Kind::Card | Kind::SplitCard => Service::NetLoopback,
            Kind::Mirror(_) => Service::Requests,
        }
    }

    fn request(&self, number: u8) -> Request {
        let bytes = mirror::message(number);
        Request {
            queue: mirror::QUEUE,
            used: bytes.len()..=bytes.len(),
            room: mirror::ROOM,
            bytes,
        }
    }

    fn judge(&self, number: u8, answer: &[u8]) -> Result<(), String> {
        let message = mirror::message(number);
        if answer.iter().rev().eq(&message) {
            Ok(())
        } else {
            Err("it is not the message from the end to the start".into())
        }
    }

    /// The capacity, or the address, is another one.
    fn change_config(&self) -> bool {
        let latest = self.latest.lock().unwrap();
        let task = latest.as_ref().unwrap();
        task.update_config(0, &[2, 2, 2, 2, 2, 2]).unwrap();
        task.inject_config_interrupt().is_ok()
    }
}

fn passes(machine: &Machine) {
    let report = machine.platform.block_on(run(machine));
    assert!(report.is_passed(), "{report}");
    let skipped = report.checks().iter();
    let skipped: Vec<_> = skipped
        .filter(|check| matches!(check.outcome, Outcome::Skipped(_)))
        .map(|check| check.name)
        .collect();
    assert!(
        2 * skipped.len() < report.checks().len(),
        "most checks concern the device: {report}"
    );
    machine.end();
    assert!(machine.platform.tasks().is_empty(), "every task has ended");
    assert_eq!(machine.platform.heap().outstanding(), 0);
}

/// What a task of each protocol can be asked for.
fn variants() -> [Options; 3] {
    let all = Options::default();
    let old = Options {
        version: ApiVersion::V0,
        features: ProtocolFeatures(0),
        ..all
    };
    let single = Options {
        in_flight: 1,
        ..all
    };
    [all, old, single]
}

#[test]
fn the_disk_conforms() {
    for options in variants() {
        passes(&Machine::new(Kind::Disk, options));
    }
}

#[test]
fn the_network_card_conforms() {
    for options in variants() {
        passes(&Machine::new(Kind::Card, options));
    }
}

#[test]
fn a_card_with_two_address_spaces_conforms() {
    passes(&Machine::new(Kind::SplitCard, Options::default()));
}

#[test]
fn a_device_of_a_type_that_the_suite_does_not_know_conforms() {
    for options in variants() {
        passes(&Machine::new(Kind::Mirror(0), options));
    }
}

#[test]
fn answers_of_another_length_are_noticed_in_a_device_of_any_type() {
    for surplus in [-1, 1] {
        let machine = Machine::new(Kind::Mirror(surplus), Options::default());
        let report = machine.platform.block_on(run(&machine));
        let failed = report.checks().iter();
        let failed = failed.filter(|check| matches!(check.outcome, Outcome::Failed(_)));
        let failed: Vec<_> = failed.map(|check| check.name).collect();
        for format in ["split: its own", "packed: its own", "each answered once"] {
            assert!(failed.iter().any(|name| name.contains(format)), "{report}");
        }
    }
}
