//! Which functions the driver of Intel's VFs takes, and on what terms. What it does with a card
//! that has a live-migration block is tested with the model of one.

use std::sync::Arc;

use pci::PciId;
use vdpa::Features;
use vdpa::bus::{BusDevice, Driver};
use vdpa::keeper::hold;
use vdpa::ops::OpError;
use virtio_pci::ifcvf::{Ifcvf, QEMU_IDS};
use virtio_pci::vp_vdpa::VpVdpa;

use crate::bench::{Bench, Calls, Driven, NAME, driver};
use crate::fakes::virtio::{Plan, access_platform, version_1};

const NET: u32 = 1;
const BLK: u32 = 2;

fn plan(device: u16, subvendor: u16, subdevice: u16) -> Plan {
    Plan {
        device,
        subvendor,
        subdevice,
        features: version_1() | access_platform(),
        ..Plan::default()
    }
}

/// The name of the driver that gets the function, if both parents are there.
fn driver_of(plan: Plan, rows: impl IntoIterator<Item = PciId>) -> (Bench, Option<String>) {
    let bench = Bench::new(plan);
    let driver = Ifcvf::new(bench.machine.platform(), Arc::clone(&bench.vdpa_bus)).with_ids(rows);
    let plain = VpVdpa::new(bench.machine.platform(), Arc::clone(&bench.vdpa_bus));
    let function = bench.machine.device(NAME);
    let pci = &bench.machine.pci;
    bench.run(async {
        // The function is on the bus already. Both drivers are to be there when it is offered.
        pci.set_override(&function, Some("nobody")).await;
        pci.add_driver(Arc::new(plain)).await.unwrap();
        pci.add_driver(Arc::new(driver)).await.unwrap();
        pci.set_override(&function, None).await;
    });
    let name = function.node().driver();
    (bench, name)
}

#[test]
fn every_known_card_becomes_a_device_of_the_right_type() {
    for (device, subdevice, device_type) in [
        (0x1041, 0x001a, NET),
        (0x1000, 0x0001, NET),
        (0x1001, 0x0002, BLK),
        (0x1042, 0x0002, BLK),
        (0x1042, 0x0000, BLK),
    ] {
        let (bench, name) = driver_of(plan(device, 0x8086, subdevice), []);
        assert_eq!(
            name.as_deref(),
            Some("ifcvf"),
            "{device:04x}:{subdevice:04x}"
        );
        let vdpa = &bench.vdpa_bus.devices()[0];
        let vdpa = bench.run(hold(&bench.vdpa_bus, vdpa)).unwrap();
        assert_eq!(
            (vdpa.device_type(), vdpa.vendor_id()),
            (device_type, 0x8086)
        );
        bench
            .start(&vdpa, version_1() | access_platform(), &Calls::default())
            .unwrap();
        bench.run(bench.machine.pci.remove_driver("ifcvf"));
        assert_eq!(bench.device.violations(), Vec::<String>::new());
    }
}

#[test]
fn other_functions_are_left_to_other_drivers() {
    for (device, subvendor, subdevice) in [
        (0x1041, 0x8086, 0x0001),
        (0x1042, 0x8086, 0x0001),
        (0x1000, 0x8086, 0x001a),
        (0x1041, 0x1af4, 0x001a),
        (0x1041, 0x1af4, 0x1100),
    ] {
        let (_bench, name) = driver_of(plan(device, subvendor, subdevice), []);
        assert_eq!(name.as_deref(), Some("vp_vdpa"));
    }
}

#[test]
fn qemus_functions_are_driven_where_that_is_asked_for() {
    for (device, device_type) in [(0x1041, NET), (0x1042, BLK)] {
        let (bench, name) = driver_of(plan(device, 0x1af4, 0x1100), QEMU_IDS);
        assert_eq!(name.as_deref(), Some("ifcvf"));
        assert_eq!(bench.vdpa_bus.devices()[0].device_type(), device_type);
    }
    // A transitional one has the ids of a card of its own.
    let (_bench, name) = driver_of(plan(0x1000, 0x1af4, 1), QEMU_IDS);
    assert_eq!(name.as_deref(), Some("vp_vdpa"));
}

#[test]
fn a_function_without_access_platform_goes_to_the_next_driver() {
    let plain = Plan {
        features: version_1(),
        ..plan(0x1041, 0x1af4, 0x1100)
    };
    let (bench, name) = driver_of(plain, QEMU_IDS);
    assert_eq!(name.as_deref(), Some("vp_vdpa"));
    assert_eq!(bench.vdpa_bus.devices().len(), 1);
}

#[test]
fn features_without_access_platform_are_refused() {
    let (bench, vdpa) = Bench::probed_by(Driven::Ifcvf, Plan::default());
    bench.run(vdpa.set_status(driver())).unwrap();
    let without = Features::from_bits(version_1());
    let refused = Err(OpError::FeaturesRefused);
    assert_eq!(vdpa.set_driver_features(without), refused);
    assert_eq!(bench.device.state.lock().driver_features, 0);
    let with = Features::from_bits(version_1() | access_platform());
    vdpa.set_driver_features(with).unwrap();
    // Nothing at all is taken back with, as after a reset.
    vdpa.set_driver_features(Features::EMPTY).unwrap();
    assert_eq!(bench.device.state.lock().driver_features, 0);
}

#[test]
fn a_row_of_another_device_type_is_refused() {
    let row = PciId {
        vendor: Some(0x1af4),
        devices: 0x1045..=0x1045,
        ..PciId::ANY
    };
    let bench = Bench::new(plan(0x1045, 0x1af4, 0x1100));
    let driver = Ifcvf::new(bench.machine.platform(), Arc::clone(&bench.vdpa_bus));
    let driver = Arc::new(driver.with_ids([row]));
    assert_eq!(driver.ids().len(), 6);
    bench.run(bench.machine.pci.add_driver(driver)).unwrap();
    assert!(bench.vdpa_bus.devices().is_empty());
    assert_eq!(bench.function.snapshot(), bench.before);
}

#[test]
fn the_driver_does_no_dma_of_its_own() {
    let (bench, vdpa) = Bench::probed_by(Driven::Ifcvf, Plan::default());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    assert_eq!(bench.machine.platform.heap().outstanding(), 0);
    bench.run(vdpa.reset()).unwrap();
    assert_eq!(bench.machine.platform.heap().outstanding(), 0);
}
