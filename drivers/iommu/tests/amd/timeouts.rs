//! An IOMMU that does not do what it is told.

use iommu::{Interrupt, InterruptSource, Iommu, RemapError};
use vdpa::platform::DomainError;

use crate::bench::{BOTH, Bench, QEMU, READ, device, entered, fact, map, unmap};
use crate::fake::Defect;

#[test]
fn what_is_not_forgotten_stays_mapped_and_keeps_its_memory() {
    for defect in [Defect::Stuck, Defect::IllegalCommand] {
        let (bench, iommu) = Bench::on(QEMU);
        let heap = bench.platform.heap();
        let unit = device(0x8);
        let domain = entered(&iommu, &unit);
        domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
        assert_eq!(bench.access(0x8, 0x1000, READ), Some(0xa000));
        let before = heap.outstanding();

        bench.fake.set_defect(defect);
        let taken = domain.change(&[unmap(0x1000, 0x1000)]);
        assert_eq!(taken, Err(DomainError::Timeout));
        assert_eq!(bench.access(0x8, 0x1000, READ), Some(0xa000));
        assert!(heap.outstanding() >= before);

        // It is not asked again, whatever it does.
        bench.fake.set_defect(Defect::None);
        let waits = bench.fake.waits();
        let more = map(1 << 40, 0x1000, BOTH, 0xb000);
        assert_eq!(domain.change(&[more]), Err(DomainError::Timeout));
        let other = iommu.domain(&device(0x10)).unwrap();
        assert_eq!(other.enter(), Err(DomainError::Timeout));
        assert_eq!(bench.access(0x10, 0x1000, READ), None);
        drop(other);
        let interrupt = Interrupt {
            vector: 0x40,
            destination: 0,
            level: false,
        };
        let remapped = iommu.remap(InterruptSource::Unit(&unit), interrupt);
        assert_eq!(remapped.unwrap().unwrap_err(), RemapError::Timeout);
        // The table that it may still walk is not given back.
        drop(domain);
        assert!(heap.outstanding() >= before);
        let _ = bench.access(0x8, 0x1000, READ);
        assert_eq!(bench.fake.waits(), waits);
        assert!(!fact(&iommu, "broken").is_empty());
    }
}

#[test]
fn tables_that_it_may_have_seen_are_kept() {
    let (bench, iommu) = Bench::on(QEMU);
    let domain = entered(&iommu, &device(0x8));
    bench.fake.set_defect(Defect::Stuck);
    let far = map(1 << 40, 0x1000, BOTH, 0xb000);
    let before = bench.platform.heap().outstanding();
    assert_eq!(domain.change(&[far]), Err(DomainError::Timeout));
    assert_eq!(bench.access(0x8, 1 << 40, READ), None);
    assert_eq!(bench.platform.heap().outstanding(), before + 3 * 0x1000);
}

#[test]
fn a_device_that_cannot_enter_reaches_nothing() {
    let (bench, iommu) = Bench::on(QEMU);
    let domain = iommu.domain(&device(0x8)).unwrap();
    domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
    bench.fake.set_defect(Defect::Stuck);
    assert_eq!(domain.enter(), Err(DomainError::Timeout));
    assert_eq!(bench.access(0x8, 0x1000, READ), None);
    assert_eq!(fact(&iommu, "requester ids in domains"), "0");
}

#[test]
fn an_illegal_command_is_waited_for_no_longer_than_needed() {
    let (bench, iommu) = Bench::on(QEMU);
    let domain = entered(&iommu, &device(0x8));
    bench.fake.set_defect(Defect::IllegalCommand);
    let before = vdpa::Platform::now(&*bench.platform);
    let changed = domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]);
    assert_eq!(changed, Err(DomainError::Timeout));
    let waited = vdpa::Platform::now(&*bench.platform) - before;
    assert!(waited < std::time::Duration::from_millis(10), "{waited:?}");
    bench.read_events();
    assert_eq!(fact(&iommu, "events"), "1 ILLEGAL_COMMAND_ERROR");
}
