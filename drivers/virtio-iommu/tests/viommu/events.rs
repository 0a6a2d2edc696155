//! Faults that an IOMMU tells of, true or not.

use vdpa::dma::{DmaFault, DmaFaultKind};
use vdpa::iotlb::Permission;
use vdpa::platform::DomainChange;
use virtq::DmaAddr;

use crate::model::{READ, WRITE};
use crate::world::{World, range};

#[test]
fn a_fault_is_told_to_the_unit_that_it_is_about() {
    let world = World::new();
    let unit = world.unit(&[0x10, 0x18]);
    let other = world.unit(&[0x20]);
    let domain = world.entered(&unit);
    let _other = world.entered(&other);
    let change = DomainChange::Map {
        range: range(0x1000, 0x1fff),
        permission: Permission::READ,
        addr: DmaAddr(0x9000),
    };
    domain.change(&[change]).unwrap();
    let expect = |count, addr, access, kind| {
        world.platform.run_until_stalled();
        let faults = unit.dma_faults();
        let last = DmaFault { addr, access, kind };
        assert_eq!((faults.count, faults.last), (count, Some(last)));
    };
    assert_eq!(world.model.access(0x10, 0x5000, READ), None);
    expect(1, 0x5000, Permission::READ, DmaFaultKind::NotMapped);
    assert_eq!(world.model.access(0x18, 0x1008, WRITE), None);
    expect(2, 0x1008, Permission::WRITE, DmaFaultKind::NotPermitted);
    world.model.report(0, 0, 0x10, 7);
    expect(3, 0, Permission::empty(), DmaFaultKind::Other);
    drop(domain);
    assert_eq!(world.model.access(0x10, 0x1000, READ), None);
    expect(4, 0x1000, Permission::READ, DmaFaultKind::NotMapped);
    assert_eq!(other.dma_faults().count, 0);
    assert_eq!(world.fact("faults"), "4");
    assert_eq!(world.fact("faults of unknown endpoints"), "0");
}

#[test]
fn more_faults_than_there_are_buffers_are_told_one_after_the_other() {
    let world = World::new();
    let unit = world.unit(&[0x10]);
    let _domain = world.entered(&unit);
    for round in 1..=5 {
        let mut told = 0;
        while world.model.report(2, READ | 1 << 8, 0x10, 0x5000) {
            told += 1;
        }
        assert_eq!(told, 64);
        world.platform.run_until_stalled();
        assert_eq!(unit.dma_faults().count, round * 64);
    }
}

#[test]
fn faults_of_nobody_are_counted() {
    let world = World::new();
    for endpoint in [0x20, 0xffff_ffff] {
        world.model.report(1, READ | 1 << 8, endpoint, 0);
        world.platform.run_until_stalled();
    }
    assert_eq!(world.fact("faults of unknown endpoints"), "2");
}

#[test]
fn an_event_of_a_wrong_length_is_not_believed() {
    let world = World::new();
    let unit = world.unit(&[0x10]);
    let _domain = world.entered(&unit);
    let fault = [2, 0, 0, 0, 1, 1, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0];
    for len in [0, 8, 16] {
        assert!(world.model.report_bytes(&fault[..len]));
    }
    world.platform.run_until_stalled();
    assert_eq!(unit.dma_faults().count, 0);
    assert_eq!(world.fact("events of a wrong length"), "3");
    assert_eq!(world.fact("faults"), "0");
    // The buffers are the device's again.
    assert_eq!(world.model.access(0x10, 0x5000, READ), None);
    world.platform.run_until_stalled();
    assert_eq!(unit.dma_faults().count, 1);
}
