//! Virtual functions: where they are, what they are, and who goes first.

use std::sync::Arc;

use pci::tool::{self, Command};
use pci::{PciDevice, PciId, PortDriver, SrIov, SrIovError};
use spin::Mutex;
use vdpa::bus::{Bound, BusDevice, Claim, Driver, ProbeError};
use vdpa::device::{DeviceKind, VdpaBus};
use vdpa::platform::BoxFuture;
use virtio_pci::vp_vdpa::VpVdpa;

use crate::fakes::machine::{MEM32, MEM64, Machine};
use crate::fakes::port::FakePort;
use crate::fakes::sriov::{FakeSriov, SriovPlan};
use crate::fakes::tree::FakeBus;

const WINDOW: std::ops::Range<u32> = 0xe800_0000..0xe810_0000;

/// A machine with a card that has virtual functions.
struct World {
    machine: Machine,
    card: Arc<FakeSriov>,
    physical: Arc<PciDevice>,
    vdpa: Arc<VdpaBus>,
}

impl World {
    /// The card is on the root bus, where its virtual functions follow it.
    fn new(plan: SriovPlan) -> Self {
        let machine = Machine::new();
        let card = FakeSriov::new(plan, &machine.tree.root);
        machine.tree.root.put(0, 0, &card);
        Self::enumerated(machine, card, "pci0000:00:00.0")
    }

    /// The card is behind a port.
    fn behind_a_port(plan: SriovPlan, window: std::ops::Range<u32>) -> (Self, Arc<FakePort>) {
        let machine = Machine::new();
        let port = FakePort::new(&machine.platform, Some(window));
        let card = FakeSriov::new(plan, port.bus());
        machine.tree.root.put(1, 0, &port);
        port.insert_any(0, 0, &card);
        (Self::enumerated(machine, card, "pci0000:01:00.0"), port)
    }

    fn enumerated(machine: Machine, card: Arc<FakeSriov>, name: &str) -> Self {
        let vdpa = VdpaBus::new("vdpa");
        machine.platform.block_on(async {
            let ports = PortDriver::new(&machine.pci);
            machine.pci.add_driver(Arc::new(ports)).await.unwrap();
            let parent = VpVdpa::new(machine.platform(), Arc::clone(&vdpa));
            machine.pci.add_driver(Arc::new(parent)).await.unwrap();
        });
        machine.enumerate();
        let physical = machine.device(name);
        Self {
            machine,
            card,
            physical,
            vdpa,
        }
    }

    fn sriov(&self) -> SrIov {
        SrIov::of(&self.machine.pci, &self.physical).expect("it has the capability")
    }

    fn enable(&self, count: u16) -> Result<Vec<Arc<PciDevice>>, SrIovError> {
        let sriov = self.sriov();
        self.machine.platform.block_on(sriov.enable(count))
    }

    fn refusal(&self, count: u16) -> SrIovError {
        self.enable(count).expect_err("it cannot be enabled")
    }

    fn disable(&self) {
        let sriov = self.sriov();
        self.machine.platform.block_on(sriov.disable()).unwrap();
    }

    fn fact(&self) -> Option<String> {
        self.machine.fact(self.physical.node().name(), "SR-IOV")
    }

    fn assert_none(&self) {
        assert!(self.sriov().functions().is_empty());
        assert!(self.card.virtual_functions.lock().is_empty());
        assert!(self.vdpa.devices().is_empty());
        assert_eq!(self.machine.platform.vectors_in_use(), 0);
        assert_eq!(*self.card.violations.lock(), Vec::<String>::new());
        assert_eq!(self.fact().as_deref(), Some("0 of 8 VFs"));
    }
}

#[test]
fn virtual_functions_become_devices_below_their_physical_one() {
    let (world, port) = World::behind_a_port(SriovPlan::default(), WINDOW);
    let functions = world.enable(4).unwrap();
    assert_eq!(functions.len(), 4);
    assert_eq!(world.fact().as_deref(), Some("4 of 8 VFs"));
    for (function, number) in functions.iter().zip(1..) {
        let path = format!("pci0000:00:01.0 -> pci0000:01:00.0 -> pci0000:01:00.{number}");
        assert_eq!(function.node().path(), path);
        assert_eq!(function.identity().vendor, 0x1af4);
        assert_eq!(function.identity().device, 0x1041);
        assert!(function.config().is_present());
        assert!(Arc::ptr_eq(
            function.physical_function().unwrap(),
            &world.physical
        ));
    }
    // Each is driven through its share of the memory that the physical function's registers name.
    let devices = world.vdpa.devices();
    assert_eq!(devices.len(), 4);
    for device in &devices {
        let DeviceKind::Vf { pf } = device.kind() else {
            panic!("{:?}", device.kind());
        };
        assert!(Arc::ptr_eq(pf, world.physical.node()));
    }
    for index in 0..4 {
        for (_, memory) in world.card.memory_of(index) {
            assert!(u64::from(WINDOW.start) <= memory.start);
            assert!(memory.end <= u64::from(WINDOW.end));
        }
    }
    assert!(port.forwards_ari());
    drop(devices);
    world.disable();
    world.assert_none();
}

#[test]
fn on_the_root_bus_their_memory_comes_from_the_machine() {
    let world = World::new(SriovPlan::default());
    world.enable(8).unwrap();
    assert_eq!(world.vdpa.devices().len(), 8);
    for index in 0..8 {
        let memory = world.card.memory_of(index);
        assert_eq!(memory.len(), 2);
        for (_, memory) in memory {
            let inside = |window: &std::ops::Range<u64>| {
                window.start <= memory.start && memory.end <= window.end
            };
            assert!(inside(&MEM32) || inside(&MEM64));
        }
    }
    world.disable();
    world.assert_none();
}

#[test]
fn they_can_come_again_in_another_number() {
    let world = World::new(SriovPlan::default());
    for count in [1, 8, 3] {
        assert_eq!(world.enable(count).unwrap().len(), usize::from(count));
        assert_eq!(world.refusal(1), SrIovError::Busy);
        world.disable();
        world.assert_none();
    }
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let world = World::new(SriovPlan::default());
    for count in [0, 9, u16::MAX] {
        assert_eq!(world.refusal(count), SrIovError::BadCount { total: 8 });
    }
    world.assert_none();
}

#[test]
fn function_numbers_of_eight_bits_need_a_port_that_passes_them_on() {
    let far = SriovPlan {
        offset: [0x80, 8],
        stride: 2,
        ..SriovPlan::default()
    };
    let (world, port) = World::behind_a_port(far, WINDOW);
    let functions = world.enable(2).unwrap();
    assert!(port.forwards_ari());
    let places: Vec<String> = functions
        .iter()
        .map(|one| one.address().to_string())
        .collect();
    assert_eq!(places, ["0000:01:01.0", "0000:01:01.2"]);

    let without = SriovPlan { ari: false, ..far };
    let (world, port) = World::behind_a_port(without, WINDOW);
    assert_eq!(world.refusal(2), SrIovError::Unreachable);
    assert!(!port.forwards_ari());
    world.assert_none();
}

#[test]
fn functions_on_buses_that_do_not_lead_to_the_card_are_refused() {
    let beyond = SriovPlan {
        offset: [0x100, 0x100],
        ..SriovPlan::default()
    };
    let (world, _) = World::behind_a_port(beyond, WINDOW);
    assert_eq!(world.refusal(1), SrIovError::NoBusNumbers);
    world.assert_none();
}

#[test]
fn offset_and_stride_that_make_no_sense_are_refused() {
    let refusals = [
        (0, 1, SrIovError::Unreachable),
        (1, 0, SrIovError::Unreachable),
        (u16::MAX, u16::MAX, SrIovError::NoBusNumbers),
    ];
    for (offset, stride, refusal) in refusals {
        let plan = SriovPlan {
            offset: [offset; 2],
            stride,
            ..SriovPlan::default()
        };
        let (world, _) = World::behind_a_port(plan, WINDOW);
        assert_eq!(world.refusal(2), refusal);
        world.assert_none();
    }
}

#[test]
fn without_room_there_are_none() {
    // The port's window has 1 MiB, and sixty functions of 20 KiB need more.
    let plan = SriovPlan {
        total: 64,
        ..SriovPlan::default()
    };
    let (world, _) = World::behind_a_port(plan, WINDOW);
    assert_eq!(world.refusal(60), SrIovError::NoRoom);
    assert!(world.card.virtual_functions.lock().is_empty());
    assert_eq!(world.enable(6).unwrap().len(), 6);
}

#[test]
fn a_card_that_keeps_them_to_itself_is_refused() {
    let plan = SriovPlan {
        refuses: true,
        ..SriovPlan::default()
    };
    let world = World::new(plan);
    assert_eq!(world.refusal(2), SrIovError::Refused);
    world.assert_none();
}

#[test]
fn a_card_with_other_pages_is_refused() {
    let plan = SriovPlan {
        odd_pages: true,
        ..SriovPlan::default()
    };
    let world = World::new(plan);
    assert_eq!(world.refusal(2), SrIovError::PageSize);
    world.assert_none();
}

#[test]
fn a_card_that_is_pulled_out_has_none() {
    let world = World::new(SriovPlan::default());
    world.card.function.pull_out();
    assert!(SrIov::of(&world.machine.pci, &world.physical).is_none());
}

#[test]
fn virtual_functions_go_before_their_physical_one() {
    let machine = Machine::new();
    let card = FakeSriov::new(SriovPlan::default(), &machine.tree.root);
    machine.tree.root.put(0, 0, &card);
    let witness = Arc::new(Witness::default());
    let driver = machine.pci.add_driver(Arc::clone(&witness) as _);
    machine.platform.block_on(driver).unwrap();
    let world = World::enumerated(machine, card, "pci0000:00:00.0");
    world.enable(3).unwrap();
    let platform = &world.machine.platform;
    platform.block_on(world.machine.pci.remove_device(&world.physical));
    assert!(world.machine.names().is_empty());
    assert!(world.vdpa.devices().is_empty());
    // The last one first, and each while the physical function was still there.
    assert_eq!(
        *witness.gone.lock(),
        ["0000:00:00.3", "0000:00:00.2", "0000:00:00.1"]
    );
}

#[test]
fn a_card_that_is_unplugged_takes_its_virtual_functions_along() {
    let (world, port) = World::behind_a_port(SriovPlan::default(), WINDOW);
    world.enable(4).unwrap();
    port.push_button();
    let platform = &world.machine.platform;
    platform.block_on(vdpa::Platform::sleep(
        &**platform,
        std::time::Duration::from_secs(5),
    ));
    assert_eq!(world.machine.names(), ["pci0000:00:01.0"]);
    assert!(world.vdpa.devices().is_empty());
    assert_eq!(platform.vectors_in_use(), 0);
}

/// A driver of virtual functions that writes down when each goes.
#[derive(Debug, Default)]
struct Witness {
    gone: Arc<Mutex<Vec<String>>>,
}

struct Witnessed {
    function: Arc<PciDevice>,
    gone: Arc<Mutex<Vec<String>>>,
}

impl Driver<PciDevice> for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }

    fn ids(&self) -> &[PciId] {
        const IDS: &[PciId] = &[PciId {
            devices: 0x1041..=0x1041,
            ..PciId::ANY
        }];
        IDS
    }

    fn probe<'a>(
        &'a self,
        device: Claim<PciDevice>,
        _: Option<&'a PciId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            Ok(Box::new(Witnessed {
                function: Arc::clone(&device),
                gone: Arc::clone(&self.gone),
            }) as Box<dyn Bound>)
        })
    }
}

impl Bound for Witnessed {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let physical = self.function.physical_function();
            let present = physical.is_some_and(|physical| physical.config().is_present());
            assert!(present, "the physical function went first");
            self.gone.lock().push(self.function.address().to_string());
        })
    }
}

#[test]
fn a_function_without_the_capability_has_none() {
    let bus = FakeBus::new();
    let machine = Machine::with_functions(&[&crate::fakes::function::Builder::bridge(bus).build()]);
    machine.enumerate();
    let bridge = machine.device("pci0000:00:01.0");
    assert!(SrIov::of(&machine.pci, &bridge).is_none());
    assert_eq!(machine.fact("pci0000:00:01.0", "SR-IOV"), None);
}

#[test]
fn places_of_other_functions_are_left_to_them() {
    let machine = Machine::new();
    let card = FakeSriov::new(SriovPlan::default(), &machine.tree.root);
    machine.tree.root.put(0, 0, &card);
    let other = crate::fakes::function::Builder::endpoint(1, 1).build();
    machine.tree.root.put(1, 0, &other);
    let world = World::enumerated(machine, card, "pci0000:00:00.0");
    // The eighth would be function 0 of the next device.
    assert_eq!(world.refusal(8), SrIovError::Unreachable);
    assert_eq!(world.enable(7).unwrap().len(), 7);
}

/// What is typed and what is answered.
fn typed(world: &World, words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    let listing = world.machine.platform.block_on(async {
        let command = Command::parse(&words)?;
        tool::run(&world.machine.pci, command).await
    });
    match listing {
        Ok(listing) => listing.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn a_user_makes_them_and_takes_them_away() {
    let world = World::new(SriovPlan::default());
    let without = "0000:00:00.0 020000: 1af4:7777 sriov_totalvfs 8 sriov_numvfs 0\n";
    assert_eq!(typed(&world, "show"), without);
    let with = "0000:00:00.0 020000: 1af4:7777 sriov_totalvfs 8 sriov_numvfs 2\n\
        0000:00:00.1 020000: 1af4:1041 driver vp_vdpa physfn 0000:00:00.0\n\
        0000:00:00.2 020000: 1af4:1041 driver vp_vdpa physfn 0000:00:00.0\n";
    assert_eq!(typed(&world, "sriov 0000:00:00.0 numvfs 2"), with);
    assert_eq!(world.vdpa.devices().len(), 2);
    // Again the same number is no change.
    assert_eq!(typed(&world, "sriov 00:00.0 numvfs 2"), with);
    assert_eq!(typed(&world, "show"), with);
    let one = Command::Show(Some(tool::address("00:00.2").unwrap()));
    let json = world
        .machine
        .platform
        .block_on(tool::run(&world.machine.pci, one));
    assert_eq!(
        json.unwrap().json(),
        "[{\"address\":\"0000:00:00.2\",\"class\":\"0x020000\",\"vendor\":\"0x1af4\",\"device\":\"0x1041\",\
         \"driver\":\"vp_vdpa\",\"physfn\":\"0000:00:00.0\"}]\n"
    );
    assert_eq!(typed(&world, "sriov 00:00.0 numvfs 0"), without);
    assert_eq!(typed(&world, "sriov 00:00.0 numvfs 0"), without);
    world.assert_none();
}

#[test]
fn what_a_user_cannot_have_is_said() {
    let world = World::new(SriovPlan::default());
    for (words, answer) in [
        (
            "sriov 00:00.0 numvfs 9",
            "0000:00:00.0: the card has at most 8 virtual functions",
        ),
        (
            "sriov 00:01.0 numvfs 1",
            "there is no function 0000:00:01.0; pci show lists them",
        ),
        (
            "show 00:01.0",
            "there is no function 0000:00:01.0; pci show lists them",
        ),
        (
            "sriov 00:00 numvfs 1",
            "a function's address is like 0000:03:00.0",
        ),
        (
            "sriov 00:20.0 numvfs 1",
            "a function's address is like 0000:03:00.0",
        ),
        (
            "sriov 0:+0:0.0 numvfs 1",
            "a function's address is like 0000:03:00.0",
        ),
        (
            "show 10000:00:00.0",
            "a function's address is like 0000:03:00.0",
        ),
        (
            "sriov 00:00.0 numvfs",
            "pci show [ADDRESS], or pci sriov ADDRESS numvfs COUNT",
        ),
        (
            "sriov 00:00.0 numvfs -1",
            "pci show [ADDRESS], or pci sriov ADDRESS numvfs COUNT",
        ),
        (
            "sriov 00:00.0 numvfs 65536",
            "pci show [ADDRESS], or pci sriov ADDRESS numvfs COUNT",
        ),
        (
            "hide",
            "pci show [ADDRESS], or pci sriov ADDRESS numvfs COUNT",
        ),
    ] {
        assert_eq!(typed(&world, words), format!("error: {answer}"), "{words}");
    }
    world.assert_none();
    typed(&world, "sriov 00:00.0 numvfs 1");
    let busy = "error: 0000:00:00.0: there are virtual functions already; set numvfs to 0 first";
    assert_eq!(typed(&world, "sriov 00:00.0 numvfs 2"), busy);
    let none = "error: 0000:00:00.1 is not SR-IOV capable";
    assert_eq!(typed(&world, "sriov 00:00.1 numvfs 1"), none);
}
