//! From a device that has been found to one that nobody bypasses, and back.

use std::sync::Arc;

use vdpa::device::Removal;
use vdpa::dma::IsolationUnit;
use vdpa::testing::Resets;
use virtio::DeviceStatus;

use crate::model::{Asked, WRITE};
use crate::world::{BYPASS, BYPASS_CONFIG, MAP_UNMAP, Setup, TIMEOUT, World, map, unmap};

#[test]
fn nobody_bypasses_an_iommu_that_is_there() {
    let world = World::new();
    assert_eq!(world.iommus.list()[0].name(), "viommu0");
    assert_eq!(world.config(36), 0, "bypass");
    assert_eq!(world.fact("state"), "on");
    assert_eq!(world.model.take_asked(), []);
}

#[test]
fn an_iommu_that_is_still_bypassed_is_none() {
    let world = Setup::default().start_with(|parent| parent.keep_config());
    assert_eq!(world.driver(), None);
    assert!(world.iommus.list().is_empty());
    assert_eq!(world.parent.status(), DeviceStatus::empty());
    assert_eq!(world.memory(), 0);
}

#[test]
fn bypass_is_not_negotiated() {
    let mut setup = Setup::default();
    setup.features = (setup.features | BYPASS) & !BYPASS_CONFIG;
    let world = setup.start();
    assert_eq!(world.parent.accepted().bits() & BYPASS, 0);
    assert_eq!(world.iommus.list().len(), 1);
    // There is no such field.
    assert_eq!(world.config(36), 1);
}

#[test]
fn an_iommu_that_cannot_be_used_is_not_driven() {
    type Change = fn(&mut Setup);
    let changes: [(&str, Change); 5] = [
        ("no mappings", |setup| setup.features &= !MAP_UNMAP),
        ("no pages", |setup| setup.traits.page_mask = 0),
        ("no addresses", |setup| setup.traits.input = (1, 0)),
        ("no domains", |setup| setup.traits.domains = (1, 0)),
        ("huge properties", |setup| {
            setup.traits.probe_size = u32::MAX;
        }),
    ];
    for (what, change) in changes {
        let mut setup = Setup::default();
        change(&mut setup);
        let world = setup.start();
        assert_eq!(world.driver(), None, "{what}");
        assert!(world.iommus.list().is_empty(), "{what}");
        assert_eq!(world.memory(), 0, "{what}");
    }
}

#[test]
fn every_step_of_the_bring_up_can_fail() {
    for skip in 0.. {
        let fail = |parent: &vdpa::testing::FakeParent| {
            parent.fail_after(skip, vdpa::ops::OpError::OutOfResources);
        };
        let world = Setup::default().start_with(fail);
        if world.parent.take_fault() {
            assert!(skip > 10);
            break;
        }
        if world.driver().is_none() {
            assert!(world.iommus.list().is_empty());
            assert_eq!(world.memory(), 0, "step {skip}");
        }
    }
}

#[test]
fn an_iommu_stands_before_those_that_the_topology_names() {
    let world = World::new();
    let iommu = &world.iommus.list()[0];
    assert!(iommu.covers(&world.unit(&[0x10])));
    assert!(iommu.covers(&world.unit(&[0x1_0010, 0x10])));
    assert!(!iommu.covers(&world.unit(&[0x1_0010])));
    assert!(!iommu.covers(&world.unit(&[])));
    assert!(world.iommus.isolate(&world.unit(&[0x1_0010])).is_none());
    let slice = IsolationUnit::new(&world.root, Some(0x10), Some(1));
    assert!(!iommu.covers(&slice), "a PASID");
}

/// Both ways of losing an IOMMU, with a unit in a domain.
fn assert_lost(lose: impl FnOnce(&World)) {
    let world = World::new();
    let unit = world.unit(&[0x10]);
    let domain = world.entered(&unit);
    domain.change(&[map(0x1000, 0x1fff, 0x9000)]).unwrap();
    world.model.take_asked();
    lose(&world);
    assert!(world.iommus.list().is_empty());
    assert_eq!(domain.change(&[unmap(0x1000, 0x1fff)]), TIMEOUT);
    assert_eq!(domain.change(&[map(0x5000, 0x5fff, 0)]), TIMEOUT);
    assert_eq!(world.model.take_asked(), []);
    assert_eq!(world.memory(), 0, "the queues");
    drop(domain);
    assert!(world.platform.tasks().iter().all(|task| task != "viommu0"));
}

#[test]
fn the_domains_of_an_iommu_that_is_let_go_answer_errors() {
    assert_lost(World::remove_driver);
}

#[test]
fn the_domains_of_an_iommu_that_is_taken_away_answer_errors() {
    assert_lost(|world| world.remove(Removal::Orderly));
}

#[test]
fn the_domains_of_an_iommu_that_is_pulled_out_answer_errors() {
    assert_lost(|world| {
        world.parent.vanish();
        // SAFETY: the device is a simulation, which does nothing by itself.
        world.remove(unsafe { Removal::surprise() });
    });
}

#[test]
fn an_iommu_that_does_not_reset_keeps_its_queues() {
    let world = World::new();
    let unit = world.unit(&[0x10]);
    let domain = world.entered(&unit);
    world.parent.set_resets(Resets::Never);
    world.remove_driver();
    assert!(world.memory() > 0);
    assert_eq!(domain.change(&[map(0x1000, 0x1fff, 0)]), TIMEOUT);
}

#[test]
fn an_iommu_comes_back_with_its_driver_empty() {
    let world = World::new();
    let unit = world.unit(&[0x10]);
    let domain = world.entered(&unit);
    domain.change(&[map(0x1000, 0x1fff, 0x9000)]).unwrap();
    world.remove_driver();
    assert_eq!(world.model.access(0x10, 0x1000, WRITE), None);
    world.bind_again();
    assert_eq!(world.iommus.list().len(), 1);
    let again = world.entered(&unit);
    assert_eq!(world.model.mapped(0), []);
    // The one before is of an IOMMU that is no more.
    world.model.take_asked();
    drop(domain);
    assert_eq!(world.model.take_asked(), []);
    again.change(&[map(0x1000, 0x1fff, 0x9000)]).unwrap();
    let asked = world.model.take_asked();
    assert!(matches!(asked[..], [Asked::Map(0, ..)]), "{asked:?}");
    drop(Arc::clone(&again));
}
