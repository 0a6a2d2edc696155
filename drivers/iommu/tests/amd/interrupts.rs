//! Which interrupts devices may raise.

use std::sync::Arc;

use iommu::amd::AmdVi;
use iommu::{Interrupt, InterruptSource, Iommu, RemapError, RemappedInterrupt};
use vdpa::dma::IsolationUnit;
use vdpa::platform::InterruptMessage;

use crate::bench::{ALIAS, ALIASED, Bench, IO_APIC, IO_APIC_DEVICE, QEMU, device, fact};
use crate::fake::{GA_SUP, IA_SUP, Model, Refused, XT_SUP};

const MODELS: [(u64, u32, &str); 3] = [
    (IA_SUP, 0xff, "remapped, 32-bit entries"),
    (IA_SUP | GA_SUP, 0xff, "remapped, 128-bit entries"),
    (
        IA_SUP | GA_SUP | XT_SUP,
        u32::MAX,
        "remapped, 128-bit entries, x2APIC",
    ),
];

fn on(features: u64) -> (Bench, Arc<AmdVi>) {
    Bench::on(Model {
        features,
        np_cache: true,
    })
}

fn interrupt(vector: u8, destination: u32) -> Interrupt {
    Interrupt {
        vector,
        destination,
        level: false,
    }
}

fn remap(iommu: &AmdVi, unit: &IsolationUnit, wanted: Interrupt) -> Box<dyn RemappedInterrupt> {
    let remapped = iommu.remap(InterruptSource::Unit(unit), wanted);
    remapped.unwrap().unwrap()
}

/// What the fake says of an interrupt that arrives.
fn arrived(vector: u8, destination: u32) -> Result<InterruptMessage, Refused> {
    Ok(InterruptMessage {
        address: destination.into(),
        data: vector.into(),
    })
}

#[test]
fn a_device_raises_what_it_was_let_raise_and_nothing_else() {
    for (features, largest, name) in MODELS {
        let (bench, iommu) = on(features);
        assert_eq!(fact(&iommu, "interrupts"), name);
        let (unit, other) = (device(0x8), device(0x10));
        let raise = |id, message| bench.fake.interrupt(id, message);
        let forged = InterruptMessage {
            address: 0xfee0_0000,
            data: 0x40,
        };
        assert_eq!(raise(0x8, forged), Err(Refused));

        let first = remap(&iommu, &unit, interrupt(0x40, 0));
        let second = remap(&iommu, &unit, interrupt(0x41, largest));
        let others = remap(&iommu, &other, interrupt(0x42, 3));
        assert_ne!(first.message(), second.message());
        assert_eq!(raise(0x8, first.message()), arrived(0x40, 0));
        assert_eq!(raise(0x8, second.message()), arrived(0x41, largest));
        assert_eq!(raise(0x10, others.message()), arrived(0x42, 3));
        // Of its own table it uses what it has, and others' it does not reach.
        assert_eq!(raise(0x10, second.message()), Err(Refused));
        for data in [2, 0x40, 511, 512, 0x7ff] {
            let message = InterruptMessage { data, ..forged };
            assert_eq!(raise(0x8, message), Err(Refused), "{data:#x}");
        }
        let unmapped = first.message();
        drop(first);
        assert_eq!(raise(0x8, unmapped), Err(Refused));
        assert_eq!(raise(0x8, second.message()), arrived(0x41, largest));
        // The place is free, and what was there is forgotten.
        let third = remap(&iommu, &unit, interrupt(0x43, 1));
        assert_eq!(third.message(), unmapped);
        assert_eq!(raise(0x8, unmapped), arrived(0x43, 1));
    }
}

#[test]
fn a_processor_that_cannot_be_named_is_an_error() {
    for (features, largest, _) in MODELS {
        let (_bench, iommu) = on(features);
        let unit = device(0x8);
        let Some(beyond) = largest.checked_add(1) else {
            continue;
        };
        let remapped = iommu.remap(InterruptSource::Unit(&unit), interrupt(0x40, beyond));
        assert_eq!(remapped.unwrap().unwrap_err(), RemapError::Destination);
    }
}

#[test]
fn interrupts_end_with_the_table() {
    let (_bench, iommu) = Bench::on(QEMU);
    let unit = device(0x8);
    let all: Vec<_> = (0..512)
        .map(|_| remap(&iommu, &unit, interrupt(0x40, 0)))
        .collect();
    let more = iommu.remap(InterruptSource::Unit(&unit), interrupt(0x40, 0));
    assert_eq!(more.unwrap().unwrap_err(), RemapError::NoEntry);
    drop(all);
    let _one = remap(&iommu, &unit, interrupt(0x40, 0));
}

#[test]
fn functions_of_a_unit_and_their_alias_have_one_table() {
    let (bench, iommu) = Bench::on(QEMU);
    let (alias, aliased) = (device(ALIAS), device(ALIASED));
    let first = remap(&iommu, &alias, interrupt(0x40, 0));
    let second = remap(&iommu, &aliased, interrupt(0x41, 0));
    for id in [ALIAS, ALIASED] {
        let raised = bench.fake.interrupt(id, second.message());
        assert_eq!(raised, arrived(0x41, 0));
    }
    assert_eq!(
        bench.fake.interrupt(ALIAS, first.message()),
        arrived(0x40, 0)
    );
}

#[test]
fn an_io_apic_finds_the_vector_where_it_looks_for_the_end_of_the_interrupt() {
    for (features, ..) in MODELS {
        let (bench, iommu) = on(features);
        assert!(iommu.covers_io_apic(IO_APIC) && !iommu.covers_io_apic(IO_APIC + 1));
        let wanted = Interrupt {
            level: true,
            ..interrupt(0x51, 2)
        };
        let source = InterruptSource::IoApic(IO_APIC);
        let first = iommu.remap(source, wanted).unwrap().unwrap();
        let second = iommu.remap(source, wanted).unwrap().unwrap();
        for remapped in [&first, &second] {
            let redirection = remapped.redirection();
            assert_eq!(redirection & 0xff, 0x51);
            // Vector and delivery mode are what it sends; the rest is the controller's.
            assert_eq!(redirection & !0x7ff, 0);
            let message = InterruptMessage {
                address: 0xfee0_0000,
                data: redirection as u32,
            };
            let raised = bench.fake.interrupt(IO_APIC_DEVICE, message);
            assert_eq!(raised, arrived(0x51, 2));
        }
        let third = iommu.remap(source, wanted).unwrap();
        assert_eq!(third.unwrap_err(), RemapError::NoEntry);
        assert!(iommu.remap(InterruptSource::IoApic(9), wanted).is_none());
    }
}

#[test]
fn without_io_apics_in_the_table_interrupts_pass() {
    let mut bench = Bench::new(QEMU);
    bench.table.units[0].special.clear();
    let iommu = bench.start().unwrap();
    let unit = device(0x8);
    let source = InterruptSource::Unit(&unit);
    assert!(iommu.remap(source, interrupt(0x40, 0)).is_none());
    let message = InterruptMessage {
        address: 0xfee0_1000,
        data: 0x40,
    };
    assert_eq!(bench.fake.interrupt(0x8, message), Ok(message));
    assert_eq!(fact(&iommu, "interrupts"), "not remapped");
}

#[test]
fn a_refused_interrupt_is_the_units_fault() {
    let (bench, iommu) = Bench::on(QEMU);
    let unit = device(0x8);
    let _domain = iommu.domain(&unit).unwrap();
    let message = InterruptMessage {
        address: 0xfee0_0000,
        data: 0x40,
    };
    assert_eq!(bench.fake.interrupt(0x8, message), Err(Refused));
    bench.read_events();
    assert_eq!(unit.dma_faults().count, 1);
}
