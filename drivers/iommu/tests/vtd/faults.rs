//! What was refused is counted, and told to whom it concerns.

use vdpa::dma::{DmaFault, DmaFaultKind};
use vdpa::iotlb::Permission;
use vdpa::platform::InterruptMessage;

use crate::fake::{Config, LEGACY, every_kind};
use crate::machine::{DEVICE, Machine, fact, map_for};

#[test]
fn a_fault_is_told_to_the_unit_with_its_address_its_access_and_its_kind() {
    for config in every_kind() {
        let machine = Machine::new(config);
        let vtd = machine.start();
        let (fake, (unit, domain)) = (machine.fake(), machine.enter(&vtd, DEVICE));
        let (other, _other_domain) = machine.enter(&vtd, 0x108);
        let read_only = map_for(0x5000, 0x1000, 0x7000, Permission::READ);
        domain.change(&[read_only]).unwrap();
        for (access, addr, kind) in [
            (Permission::READ, 0x9000, DmaFaultKind::NotMapped),
            (Permission::WRITE, 0x5000, DmaFaultKind::NotPermitted),
            (Permission::WRITE, 0xb000, DmaFaultKind::NotMapped),
        ] {
            let before = unit.dma_faults().count;
            assert!(fake.access(DEVICE, addr + 0x123, access).is_err());
            machine.settle();
            let faults = unit.dma_faults();
            assert_eq!(faults.count, before + 1, "{config:?}");
            assert_eq!(faults.last, Some(DmaFault { addr, access, kind }));
        }
        assert_eq!(other.dma_faults().count, 0);
        // Outside of a domain, too.
        drop(domain);
        assert!(fake.read(DEVICE, 0x5000).is_err());
        machine.settle();
        assert_eq!(
            unit.dma_faults().last.unwrap().kind,
            DmaFaultKind::NotMapped
        );
        assert_eq!(fact(&vtd, "dma_faults"), "4");
        assert_eq!(fact(&vtd, "unknown_faults"), "0");
    }
}

#[test]
fn more_faults_than_records_are_an_overflow_and_do_not_end_the_watch() {
    for config in every_kind() {
        let machine = Machine::new(config);
        let vtd = machine.start();
        let (fake, (unit, _domain)) = (machine.fake(), machine.enter(&vtd, DEVICE));
        let records = config.records;
        for round in 1..4 {
            for fault in 0..records + 3 {
                assert!(fake.read(DEVICE, fault << 12).is_err());
            }
            machine.settle();
            assert_eq!(unit.dma_faults().count, round * records, "{config:?}");
            assert_eq!(fact(&vtd, "fault_overflows"), round.to_string());
        }
        // One alone is seen afterwards, wherever it is recorded.
        assert!(fake.read(DEVICE, 0x1000).is_err());
        machine.settle();
        assert_eq!(unit.dma_faults().count, 3 * records + 1);
    }
}

#[test]
fn faults_of_devices_that_nobody_has_are_counted() {
    let machine = Machine::new(LEGACY);
    let vtd = machine.start();
    assert!(machine.fake().write(0x1fa, 0x1000).is_err());
    machine.settle();
    let message = InterruptMessage {
        address: 0xfee0_0000,
        data: 0x41,
    };
    assert_eq!(machine.fake().interrupt(0x1fa, message), Err(0x25));
    machine.settle();
    assert_eq!(fact(&vtd, "unknown_faults"), "2");
    assert_eq!(fact(&vtd, "dma_faults"), "1");
    assert_eq!(fact(&vtd, "interrupt_faults"), "1");
}

#[test]
fn a_refused_interrupt_is_told_to_the_device() {
    let machine = Machine::new(Config {
        records: 1,
        ..LEGACY
    });
    let vtd = machine.start();
    let (unit, _domain) = machine.enter(&vtd, DEVICE);
    let message = InterruptMessage {
        address: 0xfee0_0000,
        data: 0x41,
    };
    assert!(machine.fake().interrupt(DEVICE, message).is_err());
    machine.settle();
    let expected = DmaFault {
        addr: 0xfee0_0000,
        access: Permission::WRITE,
        kind: DmaFaultKind::Other,
    };
    assert_eq!(unit.dma_faults().last, Some(expected));
}

#[test]
fn a_device_that_makes_faults_all_the_time_leaves_time_to_others() {
    let machine = Machine::new(LEGACY);
    let vtd = machine.start();
    let (fake, (unit, _domain)) = (machine.fake(), machine.enter(&vtd, DEVICE));
    for _ in 0..100 {
        assert!(fake.read(DEVICE, 0x1000).is_err());
        machine.platform.run_until_stalled();
    }
    // The clock has stood still: the records were looked at once.
    assert_eq!(unit.dma_faults().count, 1);
    machine.settle();
    assert!(unit.dma_faults().count > 1);
}
