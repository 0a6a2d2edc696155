//! Memory that firmware uses through devices.

use iommu::Iommu;
use iommu::tables::{Ivmd, IvmdFlags};
use vdpa::iotlb::IovaRange;
use vdpa::platform::{DomainChange, DomainError};

use crate::bench::{
    ALIAS, ALIASED, BOTH, Bench, QEMU, READ, WRITE, device, entered, fact, map, range,
};
use crate::fake::Defect;

fn block(flags: IvmdFlags, devices: std::ops::RangeInclusive<u16>, start: u64) -> Ivmd {
    Ivmd {
        flags,
        segment: 0,
        devices,
        start,
        length: 0x1800,
    }
}

fn bench() -> Bench {
    let mut bench = Bench::new(QEMU);
    let both = IvmdFlags::UNITY | IvmdFlags::READ | IvmdFlags::WRITE;
    bench.table.memory = vec![
        block(both, 0x8..=0x9, 0x7000_0000),
        block(IvmdFlags::UNITY | IvmdFlags::READ, 0x9..=0x9, 0x7000_1000),
        block(IvmdFlags::EXCLUSION, ALIASED..=ALIASED, 0x7800_0000),
        block(IvmdFlags::empty(), 0x18..=0x18, 0x7900_0000),
        Ivmd {
            segment: 1,
            ..block(both, 0..=u16::MAX, 0x6000_0000)
        },
    ];
    bench
}

#[test]
fn firmware_reaches_its_memory_before_and_after_somebody_drives_the_device() {
    let bench = bench();
    let iommu = bench.start().unwrap();
    let reaches = |device, addr, access| bench.access(device, addr, access) == Some(addr);
    let as_firmware_wants = || {
        for id in [0x8, 0x9] {
            assert!(reaches(id, 0x7000_0000, WRITE));
            assert!(reaches(id, 0x7000_17ff, READ));
        }
        assert!(!reaches(0x8, 0x7000_2000, READ) && reaches(0x9, 0x7000_2000, READ));
        assert!(!reaches(0x9, 0x7000_2000, WRITE));
        for id in [ALIAS, ALIASED] {
            assert!(reaches(id, 0x7800_0000, BOTH));
        }
        assert!(!reaches(0x10, 0x7000_0000, READ) && !reaches(0x8, 0x7800_0000, READ));
        assert!(!reaches(0x18, 0x7900_0000, READ) && !reaches(0x8, 0x6000_0000, READ));
    };
    as_firmware_wants();
    assert_eq!(fact(&iommu, "domains of firmware"), "3");
    let domains = [0x8, 0x9, ALIASED].map(|id| entered(&iommu, &device(id)));
    as_firmware_wants();
    for domain in &domains {
        domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
        domain
            .change(&[DomainChange::Unmap(IovaRange::ALL)])
            .unwrap();
    }
    as_firmware_wants();
    assert_eq!(bench.access(0x8, 0x1000, READ), None);
    drop(domains);
    as_firmware_wants();
    assert_eq!(bench.access(0x8, 0x1000, READ), None);
}

#[test]
fn its_addresses_are_nobody_elses() {
    let bench = bench();
    let iommu = bench.start().unwrap();
    for (id, first, reserved) in [
        (0x8, 0x7000_0000, true),
        (ALIASED, 0x7800_0000, true),
        (0x18, 0x7900_0000, true),
        (0x10, 0x7000_0000, false),
        (0x8, 0x7800_0000, false),
        (0x8, 0x6000_0000, false),
    ] {
        let domain = iommu.domain(&device(id)).unwrap();
        let holes = domain.reserved();
        let whole = range(first, 0x2000);
        let hit = holes.iter().any(|hole| hole.contains(whole));
        assert_eq!(hit, reserved, "{id:#x}: {holes:x?}");
    }
}

#[test]
fn a_device_that_cannot_enter_stays_where_firmware_has_it() {
    let bench = bench();
    let iommu = bench.start().unwrap();
    let domain = iommu.domain(&device(0x8)).unwrap();
    domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
    bench.fake.set_defect(Defect::Stuck);
    assert_eq!(domain.enter(), Err(DomainError::Timeout));
    assert_eq!(bench.access(0x8, 0x7000_0000, READ), Some(0x7000_0000));
    assert_eq!(bench.access(0x8, 0x1000, READ), None);
}
