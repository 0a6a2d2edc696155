//! Cards that come and go behind a port.

use std::sync::Arc;
use std::time::Duration;

use pci::{PciDevice, PortDriver};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use vdpa::Platform;
use vdpa::bus::BusDevice;
use vdpa::device::VdpaBus;
use vdpa::ops::OpError;
use virtio_pci::vp_vdpa::VpVdpa;

use crate::fakes::function::{Builder, FakeFunction};
use crate::fakes::machine::{MEM32, Machine};
use crate::fakes::port::{
    ATTENTION_INDICATOR, ATTENTION_ON, Card, FakePort, INDICATOR_OFF, INDICATOR_ON,
    POWER_INDICATOR, Temper,
};
use crate::fakes::tree::FakeBus;
use crate::fakes::virtio::{FakeVirtio, Plan};

/// Longer than anything that a slot's driver does.
const LONG: Duration = Duration::from_secs(5);
const WINDOW: std::ops::Range<u32> = 0xe800_0000..0xe820_0000;
/// Where the only function of a card is.
const CARD: &str = "pci0000:01:00.0";

/// A machine with one slot and a parent driver for what is in it.
struct World {
    machine: Machine,
    port: Arc<FakePort>,
    vdpa: Arc<VdpaBus>,
}

impl World {
    fn new() -> Self {
        Self::with(Some(WINDOW), &[])
    }

    /// `window` is the port's; `others` are on the root bus from the start.
    fn with(window: Option<std::ops::Range<u32>>, others: &[&Arc<FakeFunction>]) -> Self {
        let machine = Machine::new();
        let port = FakePort::new(&machine.platform, window);
        machine.tree.root.put(1, 0, &port);
        for (device, function) in (2..).zip(others) {
            machine.tree.root.put(device, 0, function);
        }
        let vdpa = VdpaBus::new("vdpa");
        machine.platform.block_on(async {
            let ports = PortDriver::new(&machine.pci);
            machine.pci.add_driver(Arc::new(ports)).await.unwrap();
            let parent = VpVdpa::new(machine.platform(), Arc::clone(&vdpa));
            machine.pci.add_driver(Arc::new(parent)).await.unwrap();
        });
        machine.enumerate();
        Self {
            machine,
            port,
            vdpa,
        }
    }

    fn wait(&self, duration: Duration) {
        let platform = &self.machine.platform;
        platform.block_on(platform.sleep(duration));
    }

    fn insert(&self) -> Arc<FakeVirtio> {
        let (device, function) = FakeVirtio::new(Plan::default());
        self.port.insert(Card::from([(0, 0, function)]));
        device
    }

    /// The card's function, if it is on the bus.
    fn card(&self) -> Option<Arc<PciDevice>> {
        let devices = self.machine.pci.devices();
        let mut found = devices
            .into_iter()
            .filter(|device| device.node().name() == CARD);
        found.next()
    }

    fn indicator(&self, which: u16) -> u16 {
        self.port.control() & which
    }

    /// Nothing is left of any card.
    fn assert_empty(&self) {
        assert_eq!(self.machine.names(), ["pci0000:00:01.0"]);
        assert!(self.vdpa.devices().is_empty());
        assert!(!self.port.is_powered());
        assert_eq!(self.machine.platform.vectors_in_use(), 0);
        let port = self.machine.device("pci0000:00:01.0");
        assert!(port.node().children().is_empty());
    }

    fn assert_no_violations(&self) {
        assert_eq!(self.port.violations(), Vec::<String>::new());
    }
}

#[test]
fn a_card_becomes_a_device_within_the_window_of_its_port() {
    let world = World::new();
    let device = world.insert();
    world.wait(LONG);
    let card = world.card().expect("the card is on the bus");
    assert_eq!(card.node().path(), format!("pci0000:00:01.0 -> {CARD}"));
    assert_eq!(
        world.machine.pci.driver_of(&card).as_deref(),
        Some("vp_vdpa")
    );
    assert_eq!(world.vdpa.devices().len(), 1);
    assert!(world.port.is_powered());
    assert_eq!(world.indicator(POWER_INDICATOR), INDICATOR_ON);
    let function = device.function.get().unwrap();
    for (_, memory) in function.memory() {
        assert!(u64::from(WINDOW.start) <= memory.start && memory.end <= u64::from(WINDOW.end));
    }
    assert_eq!(device.violations(), Vec::<String>::new());
    world.assert_no_violations();
}

#[test]
fn a_port_without_a_window_gets_one() {
    let world = World::with(None, &[]);
    let device = world.insert();
    world.wait(LONG);
    assert_eq!(world.vdpa.devices().len(), 1);
    let window = world.port.window().expect("the port has a window now");
    assert!(MEM32.start <= window.start && window.end <= MEM32.end);
    let memory = device.function.get().unwrap().memory();
    assert_eq!(memory.len(), 2);
    for (_, memory) in memory {
        assert!(window.start <= memory.start && memory.end <= window.end);
    }
}

#[test]
fn what_is_in_use_elsewhere_stays_where_it_is() {
    let (first, function) = FakeVirtio::new(Plan::default());
    let world = World::with(None, &[&function]);
    let before = function.memory();
    assert_eq!(before.len(), 2);
    let device = world.insert();
    world.wait(LONG);
    assert_eq!(world.vdpa.devices().len(), 2);
    assert_eq!(function.memory(), before);
    for (_, memory) in device.function.get().unwrap().memory() {
        for (_, other) in &before {
            assert!(memory.end <= other.start || other.end <= memory.start);
        }
    }
    assert_eq!(first.violations(), Vec::<String>::new());
}

#[test]
fn the_button_takes_a_card_off_in_good_order() {
    let world = World::new();
    let device = world.insert();
    world.wait(LONG);
    let vdpa = world.vdpa.devices().pop().unwrap();
    world.port.push_button();
    world.wait(LONG);
    world.assert_empty();
    assert_eq!(device.state.lock().status, 0, "it was reset before");
    assert_eq!(vdpa.status(), Err(OpError::Gone));
    assert_eq!(world.indicator(POWER_INDICATOR), INDICATOR_OFF);
    assert_eq!(device.violations(), Vec::<String>::new());
    world.assert_no_violations();
}

#[test]
fn the_button_gives_power_to_a_card_that_was_switched_off() {
    let world = World::new();
    world.insert();
    world.wait(LONG);
    world.port.push_button();
    world.wait(LONG);
    world.assert_empty();
    world.port.push_button();
    world.wait(LONG);
    assert_eq!(world.vdpa.devices().len(), 1);
    world.assert_no_violations();
}

#[test]
fn a_card_that_is_pulled_out_is_not_touched_and_leaves_nothing() {
    let world = World::new();
    let device = world.insert();
    world.wait(LONG);
    let card = world.card().unwrap();
    let vdpa = world.vdpa.devices().pop().unwrap();
    let function = Arc::clone(device.function.get().unwrap());
    world.port.pull();
    let touched = function.writes().len();
    world.wait(LONG);
    world.assert_empty();
    assert_eq!(vdpa.status(), Err(OpError::Gone));
    assert_eq!(function.writes().len(), touched);
    assert!(!card.config().is_present());
}

#[test]
fn another_card_is_another_device_even_while_somebody_refers_to_the_first() {
    let world = World::new();
    world.insert();
    world.wait(LONG);
    let first = world.card().unwrap();
    let vdpa = world.vdpa.devices().pop().unwrap();
    world.port.pull();
    // Nobody has noticed when the next one is in.
    let device = world.insert();
    world.wait(LONG);
    let second = world.card().unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(vdpa.status(), Err(OpError::Gone));
    assert!(!first.config().is_present() && second.config().is_present());
    assert_eq!(world.vdpa.devices().len(), 1);
    let status = device.state.lock().status;
    drop((first, vdpa));
    assert_eq!(device.state.lock().status, status);
    assert_eq!(device.violations(), Vec::<String>::new());
    world.assert_no_violations();
}

#[test]
fn what_is_kept_of_a_card_that_left_in_good_order_does_not_reach_the_next() {
    let world = World::new();
    world.insert();
    world.wait(LONG);
    let first = world.card().unwrap();
    world.port.push_button();
    world.wait(LONG);
    world.assert_empty();
    world.port.pull();
    let device = world.insert();
    world.wait(LONG);
    let second = world.card().unwrap();
    assert_eq!(second.config().read16(0), 0x1af4);
    assert_eq!(first.config().read16(0), 0xffff);
    let function = Arc::clone(device.function.get().unwrap());
    let touched = function.writes().len();
    // What it would do is written to configuration space: decode, and mastery of the bus.
    let claim = first.claim().unwrap();
    // SAFETY: the function has left, and reaches nothing.
    drop(unsafe { claim.enable_bus_master() });
    assert_eq!(function.writes().len(), touched);
}

#[test]
fn a_card_whose_presence_bounces_is_taken_anew() {
    let world = World::new();
    world.insert();
    world.wait(LONG);
    let first = world.card().unwrap();
    for _ in 0..5 {
        world.port.pull();
        world.insert();
        world.wait(Duration::from_millis(3));
    }
    world.wait(LONG);
    let second = world.card().unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(world.vdpa.devices().len(), 1);
    world.assert_no_violations();
}

#[test]
fn a_link_that_is_slow_is_waited_for() {
    let world = World::new();
    world.port.set_temper(Temper {
        link: Some(Duration::from_millis(900)),
        command: Duration::from_millis(500),
        fault: false,
    });
    world.insert();
    world.wait(LONG);
    assert_eq!(world.vdpa.devices().len(), 1);
    world.assert_no_violations();
}

#[test]
fn a_link_that_stays_down_costs_the_card_its_power() {
    let world = World::new();
    world.port.set_temper(Temper {
        link: None,
        ..Temper::default()
    });
    world.insert();
    world.wait(LONG);
    world.assert_empty();
    assert_eq!(world.indicator(ATTENTION_INDICATOR), ATTENTION_ON);
    // The next one has more luck.
    world.port.set_temper(Temper::default());
    world.port.pull();
    world.insert();
    world.wait(LONG);
    assert_eq!(world.vdpa.devices().len(), 1);
    assert_ne!(world.indicator(ATTENTION_INDICATOR), ATTENTION_ON);
    world.assert_no_violations();
}

#[test]
fn a_power_fault_ends_the_use_of_the_slot() {
    let world = World::new();
    world.port.set_temper(Temper {
        fault: true,
        ..Temper::default()
    });
    world.insert();
    world.wait(LONG);
    world.assert_empty();
    assert_eq!(world.indicator(ATTENTION_INDICATOR), ATTENTION_ON);
    world.assert_no_violations();
}

#[test]
fn a_card_that_does_not_answer_is_given_up() {
    let world = World::new();
    let function = Builder::endpoint(0x1234, 1).build();
    function.pull_out();
    world.port.insert(Card::from([(0, 0, function)]));
    world.wait(LONG);
    world.assert_empty();
    assert_eq!(world.indicator(ATTENTION_INDICATOR), ATTENTION_ON);
}

#[test]
fn a_card_that_is_not_ready_is_waited_for() {
    let world = World::new();
    let (_, function) = FakeVirtio::new(Plan::default());
    // Request retry status: the vendor id that nobody has.
    function.set_vendor(0x0001);
    world
        .port
        .insert(Card::from([(0, 0, Arc::clone(&function))]));
    world.wait(Duration::from_millis(600));
    assert!(world.card().is_none());
    function.set_vendor(0x1af4);
    world.wait(LONG);
    assert_eq!(world.vdpa.devices().len(), 1);
}

#[test]
fn a_button_that_is_pushed_while_the_card_comes_is_not_forgotten() {
    let world = World::new();
    world.wait(LONG);
    world.insert();
    world.wait(Duration::from_millis(80));
    assert!(world.port.is_powered() && world.card().is_none());
    world.port.push_button();
    world.wait(LONG);
    world.assert_empty();
    world.assert_no_violations();
}

#[test]
fn a_card_that_is_pulled_out_while_it_comes_is_forgotten() {
    for at in [1, 20, 60, 100, 120, 160, 200, 230, 250] {
        let world = World::new();
        world.wait(LONG);
        world.insert();
        world.wait(Duration::from_millis(at));
        world.port.pull();
        world.wait(LONG);
        world.assert_empty();
        world.assert_no_violations();
    }
}

#[test]
fn all_functions_of_a_card_and_what_is_behind_its_bridges_come_and_go() {
    let world = World::new();
    let behind = FakeBus::new();
    behind.put(0, 0, &Builder::endpoint(0x1234, 3).build());
    let functions = [
        Builder::endpoint(0x1234, 1).multi_function().build(),
        Builder::bridge(behind).build(),
    ];
    let card = (0..)
        .zip(functions)
        .map(|(number, function)| (0, number, function));
    world.port.insert(card.collect());
    world.wait(LONG);
    // The port has a single bus number, so nothing can be found behind the card's bridge.
    assert_eq!(
        world.machine.names(),
        ["pci0000:00:01.0", "pci0000:01:00.0", "pci0000:01:00.1"]
    );
    world.port.push_button();
    world.wait(LONG);
    world.assert_empty();
}

#[test]
fn without_its_driver_a_slot_is_left_alone() {
    let world = World::new();
    world.insert();
    world.wait(LONG);
    let platform = &world.machine.platform;
    platform.block_on(world.machine.pci.remove_driver("pcieport"));
    assert_eq!(platform.tasks(), Vec::<String>::new());
    world.port.push_button();
    world.wait(LONG);
    assert_eq!(world.vdpa.devices().len(), 1);
}

#[test]
fn a_bridge_without_a_slot_needs_nothing() {
    let bridge = Builder::bridge(FakeBus::new()).build();
    let machine = Machine::with_functions(&[&bridge]);
    machine.platform.block_on(async {
        let ports = PortDriver::new(&machine.pci);
        machine.pci.add_driver(Arc::new(ports)).await.unwrap();
    });
    machine.enumerate();
    let bridge = machine.device("pci0000:00:01.0");
    assert_eq!(machine.pci.driver_of(&bridge).as_deref(), Some("pcieport"));
    assert_eq!(machine.platform.tasks(), Vec::<String>::new());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert,
    Pull,
    Button,
    Temper(Option<u64>, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Insert),
        Just(Step::Pull),
        Just(Step::Button),
        (
            prop_oneof![Just(None), (0..1500_u64).prop_map(Some)],
            any::<bool>()
        )
            .prop_map(|(link, fault)| Step::Temper(link, fault)),
        (0..2000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_bus_has_what_the_slot_has(
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let world = World::new();
        let mut inside = false;
        for step in steps {
            match step {
                Step::Insert if !inside => {
                    world.insert();
                    inside = true;
                }
                Step::Insert => {}
                Step::Pull => {
                    world.port.pull();
                    inside = false;
                }
                Step::Button => world.port.push_button(),
                Step::Temper(link, fault) => world.port.set_temper(Temper {
                    link: link.map(Duration::from_millis),
                    fault,
                    ..Temper::default()
                }),
                Step::Wait(time) => world.wait(Duration::from_millis(time)),
            }
        }
        world.wait(LONG);
        world.wait(LONG);
        let used = usize::from(inside && world.port.is_powered());
        assert_eq!(world.vdpa.devices().len(), used);
        // In the end a good card always gets in, and nothing is left when it is out.
        world.port.set_temper(Temper::default());
        world.port.pull();
        world.wait(LONG);
        world.assert_empty();
        world.insert();
        world.wait(LONG);
        assert_eq!(world.vdpa.devices().len(), 1);
        world.port.pull();
        world.wait(LONG);
        world.assert_empty();
        world.assert_no_violations();
    }
}
