//! Taking a device off, asked or not.

use std::time::Duration;

use vdpa::Platform;
use vdpa::device::Removal;
use vdpa::ops::OpError;

use crate::fakes::function::BUS_MASTER;
use crate::fakes::virtio::{Plan, version_1};

use super::{Bench, Calls, NAME};

#[test]
fn a_removed_driver_leaves_the_function_as_it_was() {
    let (bench, vdpa) = Bench::probed(Plan::default());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    drop(vdpa);
    bench.run(bench.machine.pci.remove_driver("vp_vdpa"));
    assert!(bench.vdpa_bus.devices().is_empty());
    assert_eq!(bench.function.snapshot(), bench.before);
    assert_eq!(bench.machine.platform.vectors_in_use(), 0);
    // And it can come back.
    bench.probe();
    assert_eq!(bench.vdpa_bus.devices().len(), 1);
}

#[test]
fn a_reference_that_outlives_the_removal_finds_the_device_gone() {
    let (bench, vdpa) = Bench::probed(Plan::default());
    bench.run(bench.vdpa_bus.unregister(&vdpa, Removal::Orderly));
    assert_eq!(vdpa.status(), Err(OpError::Gone));
}

#[test]
fn a_function_that_is_pulled_out_is_removed_without_waiting() {
    let (bench, vdpa) = Bench::probed(Plan::default());
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    drop(vdpa);
    let function = bench.machine.device(NAME);
    bench.function.pull_out();
    bench.run(bench.machine.pci.remove_device(&function));
    assert!(bench.vdpa_bus.devices().is_empty());
    assert_eq!(bench.machine.platform.vectors_in_use(), 0);
    assert_eq!(bench.machine.platform.now(), Duration::ZERO);
}

#[test]
fn a_shutdown_ends_all_access_to_memory() {
    let (bench, _vdpa) = Bench::probed(Plan::default());
    assert_eq!(bench.function.command() & BUS_MASTER, BUS_MASTER);
    bench.run(vdpa::power::shutdown(&bench.machine.root));
    assert_eq!(bench.function.command() & BUS_MASTER, 0);
}
