//! Turning it on.

use iommu::Iommu;
use iommu::amd::AmdViError;
use iommu::tables::IvhdFlags;
use vdpa::testing::HeapDma;

use crate::bench::{BOTH, Bench, QEMU, READ, device, entered, fact, map};
use crate::fake::{Defect, GA_SUP, IA_SUP, Model};

const COHERENT: u64 = 1 << 10;
const ISOC: u64 = 1 << 11;

#[test]
fn what_firmware_has_left_on_is_turned_off_and_forgotten() {
    for features in [IA_SUP, 0] {
        let bench = Bench::new(Model {
            features,
            np_cache: false,
        });
        bench.fake.left_on();
        let iommu = bench.start().unwrap();
        assert_eq!(bench.access(0x8, 0x1000, READ), None);
        let domain = entered(&iommu, &device(0x8));
        domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
        assert_eq!(bench.access(0x8, 0x1000, READ), Some(0xa000));
    }
}

#[test]
fn one_that_does_not_stop_is_not_used() {
    let bench = Bench::new(QEMU);
    bench.fake.left_on();
    bench.fake.set_defect(Defect::NeverStops);
    assert_eq!(bench.start().unwrap_err(), AmdViError::NotStopped);
    assert!(!bench.fake.is_enabled());
}

#[test]
fn one_that_executes_nothing_is_turned_off_again() {
    let bench = Bench::new(QEMU);
    bench.fake.set_defect(Defect::Stuck);
    assert_eq!(bench.start().unwrap_err(), AmdViError::Timeout);
    assert!(!bench.fake.is_enabled());
}

#[test]
fn one_that_is_not_there_is_an_error() {
    let mut bench = Bench::new(QEMU);
    bench.table.units[0].base = 0xfed0_0000;
    assert_eq!(bench.start().unwrap_err(), AmdViError::Registers);
    bench.table.units.clear();
    assert_eq!(bench.start().unwrap_err(), AmdViError::NoUnit);
}

#[test]
fn short_memory_leaves_it_off() {
    let needed = {
        let (bench, _iommu) = Bench::on(QEMU);
        bench.platform.heap().outstanding()
    };
    for bytes in [0, 2 << 20, (2 << 20) + 0x1000, needed - 1] {
        let bench = Bench::with_heap(QEMU, HeapDma::limited(bytes));
        assert_eq!(bench.start().unwrap_err(), AmdViError::OutOfMemory);
        assert!(!bench.fake.is_enabled());
        assert_eq!(bench.platform.heap().outstanding(), 0);
    }
}

#[test]
fn it_does_as_firmware_wants_it() {
    let mut bench = Bench::new(QEMU);
    bench.table.units[0].flags = IvhdFlags::ISOCHRONOUS;
    let _iommu = bench.start().unwrap();
    assert_eq!(bench.fake.control() & (COHERENT | ISOC), ISOC);
    let (bench, _iommu) = Bench::on(QEMU);
    assert_eq!(bench.fake.control() & (COHERENT | ISOC), COHERENT);
}

#[test]
fn one_that_cannot_be_asked_is_taken_to_remember_absence() {
    let mut bench = Bench::new(QEMU);
    bench.config = false;
    let iommu = bench.start().unwrap();
    let domain = entered(&iommu, &device(0x8));
    assert_eq!(bench.access(0x8, 0x1000, READ), None);
    domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
    assert_eq!(bench.access(0x8, 0x1000, READ), Some(0xa000));
}

#[test]
fn it_says_what_it_is() {
    let (_bench, iommu) = Bench::on(QEMU);
    assert_eq!(iommu.name(), "amdvi0");
    assert_eq!(fact(&iommu, "registers"), "0xfed80000");
    assert_eq!(fact(&iommu, "addresses"), "48 bits, 4 levels");
    assert_eq!(fact(&iommu, "interrupts"), "remapped, 128-bit entries");
    let _domain = entered(&iommu, &device(0x8));
    assert_eq!(fact(&iommu, "requester ids in domains"), "1");
    assert_eq!(fact(&iommu, "events"), "none");
    assert_eq!(GA_SUP & QEMU.features, GA_SUP);
}

#[test]
fn its_table_has_all_devices_that_firmware_names() {
    let one_bus = {
        let mut bench = Bench::new(QEMU);
        bench.table.units[0].devices.truncate(1);
        bench.table.units[0].devices[0].devices = 0..=0x1f;
        // The I/O APIC's is the highest.
        let iommu = bench.start().unwrap();
        let domain = entered(&iommu, &device(0x1f));
        domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
        assert_eq!(bench.access(0x1f, 0x1000, READ), Some(0xa000));
        assert_eq!(bench.access(0xa0, 0x1000, READ), None);
        assert_eq!(bench.access(0xffff, 0x1000, READ), None);
        drop(domain);
        bench.platform.heap().outstanding()
    };
    for id in [0x100, 0xffff] {
        let mut bench = Bench::new(QEMU);
        bench.table.units[0].devices.truncate(1);
        bench.table.units[0].devices[0].alias = Some(id);
        let iommu = bench.start().unwrap();
        let domain = entered(&iommu, &device(0x8));
        domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
        assert_eq!(bench.access(id, 0x1000, READ), Some(0xa000));
        drop(domain);
        let difference = bench.platform.heap().outstanding() - one_bus;
        assert_eq!(difference, (2 << 20) - (8 << 10));
    }
}
