//! What the log says.

use vdpa::dma::{DmaFault, DmaFaultKind};
use vdpa::iotlb::Permission;

use crate::bench::{ALIAS, ALIASED, BOTH, Bench, QEMU, READ, WRITE, device, entered, fact, map};
use crate::fake::{GA_SUP, IA_SUP, MSI_CAP_MMIO_SUP, Model, XT_SUP};

const KINDS: [(u64, &str); 9] = [
    (1, "ILLEGAL_DEV_TABLE_ENTRY"),
    (2, "IO_PAGE_FAULT"),
    (3, "DEV_TAB_HARDWARE_ERROR"),
    (4, "PAGE_TAB_HARDWARE_ERROR"),
    (5, "ILLEGAL_COMMAND_ERROR"),
    (6, "COMMAND_HARDWARE_ERROR"),
    (7, "IOTLB_INV_TIMEOUT"),
    (8, "INVALID_DEVICE_REQUEST"),
    (9, "unknown event"),
];

#[test]
fn refused_accesses_are_the_units() {
    let (bench, iommu) = Bench::on(QEMU);
    let (unit, other, aliased) = (device(0x8), device(0x10), device(ALIASED));
    let domain = entered(&iommu, &unit);
    let _others = (entered(&iommu, &other), entered(&iommu, &aliased));
    domain.change(&[map(0x1000, 0x1000, READ, 0xa000)]).unwrap();
    let fault = |addr, access, kind| DmaFault { addr, access, kind };
    let of = |unit: &vdpa::dma::IsolationUnit| (unit.dma_faults().count, unit.dma_faults().last);

    assert_eq!(bench.access(0x8, 0x1234, WRITE), None);
    bench.read_events();
    let refused = fault(0x1234, WRITE, DmaFaultKind::NotPermitted);
    assert_eq!(of(&unit), (1, Some(refused)));
    assert_eq!(bench.access(0x8, 0x5678, READ), None);
    bench.read_events();
    let refused = fault(0x5678, READ, DmaFaultKind::NotMapped);
    assert_eq!(of(&unit), (2, Some(refused)));
    assert_eq!(of(&other), (0, None));
    assert_eq!(bench.access(ALIAS, 0x42, WRITE), None);
    bench.read_events();
    assert_eq!(of(&aliased).0, 1);
    // What is permitted is no fault, and strangers are nobody's.
    assert_eq!(bench.access(0x8, 0x1000, READ), Some(0xa000));
    assert_eq!(bench.access(0x20, 0x1000, READ), None);
    bench.read_events();
    assert_eq!((of(&unit).0, of(&other).0, of(&aliased).0), (2, 0, 1));
    assert_eq!(fact(&iommu, "events"), "4 IO_PAGE_FAULT");
    // It is still told after it has left.
    drop(domain);
    assert_eq!(bench.access(0x8, 0x1000, READ), None);
    bench.read_events();
    assert_eq!(of(&unit).0, 3);
}

#[test]
fn each_kind_is_counted_by_its_name() {
    for (code, name) in KINDS {
        let (bench, iommu) = Bench::on(QEMU);
        let unit = device(0x8);
        let domain = entered(&iommu, &unit);
        bench.fake.report([code << 60 | 0x8, 0x1000]);
        bench.fake.report([code << 60 | 0x8, 0x2000]);
        bench.read_events();
        assert_eq!(fact(&iommu, "events"), format!("2 {name}"));
        let concerns = [1, 2, 3, 4, 8].contains(&code);
        assert_eq!(unit.dma_faults().count, if concerns { 2 } else { 0 });
        let stops = [5, 6].contains(&code);
        assert_eq!(!fact(&iommu, "broken").is_empty(), stops);
        let changed = domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]);
        assert_eq!(changed.is_err(), stops);
    }
}

#[test]
fn a_full_log_is_counted_and_goes_on() {
    let (bench, iommu) = Bench::on(QEMU);
    let unit = device(0x8);
    let _domain = entered(&iommu, &unit);
    for round in 1..4_u64 {
        for access in 0..1000 {
            assert_eq!(bench.access(0x8, access << 12, READ), None);
        }
        bench.read_events();
        let logged = 511 * round;
        let events = format!("{logged} IO_PAGE_FAULT, {round} overflows");
        assert_eq!(fact(&iommu, "events"), events);
        assert_eq!(unit.dma_faults().count, logged);
    }
    assert_eq!(bench.access(0x8, 0x1000, READ), None);
    bench.read_events();
    assert_eq!(unit.dma_faults().count, 511 * 3 + 1);
}

#[test]
fn events_are_seen_at_once_with_an_interrupt_and_late_without() {
    let in_registers = IA_SUP | GA_SUP | XT_SUP | MSI_CAP_MMIO_SUP;
    for (features, config, at_once) in [
        (IA_SUP, true, true),
        (in_registers, false, true),
        (IA_SUP, false, false),
    ] {
        let mut bench = Bench::new(Model {
            features,
            np_cache: true,
        });
        bench.config = config;
        let iommu = bench.start().unwrap();
        bench.platform.run_until_stalled();
        for count in 1..3 {
            assert_eq!(bench.access(0x20, 0x1000, READ), None);
            bench.platform.run_until_stalled();
            if at_once {
                let events = format!("{count} IO_PAGE_FAULT");
                assert_eq!(fact(&iommu, "events"), events);
            }
            bench.read_events();
            assert_eq!(fact(&iommu, "events"), format!("{count} IO_PAGE_FAULT"));
        }
    }
}

#[test]
fn an_entry_that_never_comes_is_passed_over() {
    let (bench, iommu) = Bench::on(QEMU);
    bench.fake.report([0, 0]);
    bench.fake.report([2 << 60 | 0x20, 0]);
    bench.read_events();
    assert_eq!(fact(&iommu, "events"), "1 IO_PAGE_FAULT");
}

#[test]
fn a_memory_access_that_is_marked_as_an_interrupt_is_none() {
    let (bench, iommu) = Bench::on(QEMU);
    let unit = device(0x8);
    let _domain = entered(&iommu, &unit);
    for (addr, access, kind) in [
        (0x1000, Permission::empty(), DmaFaultKind::NotMapped),
        (0xfee0_1000, WRITE, DmaFaultKind::Other),
    ] {
        bench.fake.report([2 << 60 | 1 << 51 | 0x8, addr]);
        bench.read_events();
        let fault = DmaFault { addr, access, kind };
        assert_eq!(unit.dma_faults().last, Some(fault));
    }
}
