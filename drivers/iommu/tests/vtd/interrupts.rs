//! Interrupts that are remapped, and those that are not let through.

use iommu::tables::DmarFlags;
use iommu::vtd::{ApicMode, Vtd};
use iommu::{Interrupt, InterruptSource, Iommu, RemapError, RemappedInterrupt};
use vdpa::dma::IsolationUnit;
use vdpa::platform::InterruptMessage;

use crate::fake::{Config, LEGACY, every_kind};
use crate::machine::{DEVICE, Machine, fact};

const EDGE: Interrupt = Interrupt {
    vector: 0x41,
    destination: 0x0001_0203,
    level: false,
};

fn remap(vtd: &Vtd, unit: &IsolationUnit) -> Box<dyn RemappedInterrupt> {
    let result = vtd.remap(InterruptSource::Unit(unit), EDGE);
    result.unwrap().unwrap()
}

#[test]
fn a_device_raises_what_it_was_let_raise_and_nothing_else() {
    for config in every_kind() {
        let machine = Machine::new(config);
        let vtd = machine.start();
        let fake = machine.fake();
        let (one, other) = (machine.unit(DEVICE), machine.unit(0x108));
        let first = remap(&vtd, &one);
        let second = remap(&vtd, &other);
        // Fixed delivery, edge-triggered, to a processor with an id of 32 bits.
        let expected = 0x0001_0203 << 32 | 0x41 << 16 | 1;
        assert_eq!(
            fake.interrupt(DEVICE, first.message()),
            Ok(expected),
            "{config:?}"
        );
        assert_eq!(fake.interrupt(0x108, second.message()), Ok(expected));
        // Not that of another device, nor one that is not remapped, nor one that is not there.
        assert_eq!(fake.interrupt(DEVICE, second.message()), Err(0x26));
        assert_eq!(fake.interrupt(0x101, first.message()), Err(0x26));
        let imitation = InterruptMessage {
            address: 0xfee0_0000,
            data: 0x41,
        };
        assert_eq!(fake.interrupt(DEVICE, imitation), Err(0x25));
        let beyond = InterruptMessage {
            address: first.message().address + (5 << 5),
            data: 0,
        };
        assert_eq!(fake.interrupt(DEVICE, beyond), Err(0x22));
        assert_eq!(fact(&vtd, "interrupts"), "2");
        // Nor one that has been taken back.
        let message = first.message();
        drop(first);
        assert_eq!(fake.interrupt(DEVICE, message), Err(0x22), "{config:?}");
        // Another device gets the entry: its own source counts.
        let third = remap(&vtd, &other);
        assert_eq!(third.message(), message);
        assert_eq!(fake.interrupt(0x108, message), Ok(expected), "{config:?}");
        assert_eq!(fake.interrupt(DEVICE, message), Err(0x26));
    }
}

#[test]
fn the_senders_of_a_unit_are_its_functions_or_its_buses() {
    let machine = Machine::new(LEGACY);
    let vtd = machine.start();
    let fake = machine.fake();
    let functions = machine.unit_below(&[0x510, 0x511, 0x517], &[]);
    let message = remap(&vtd, &functions);
    for (source, expected) in [(0x510, true), (0x517, true), (0x518, false), (0x410, false)] {
        let result = fake.interrupt(source, message.message());
        assert_eq!(result.is_ok(), expected, "{source:#x}");
    }
    // Behind a bridge that sends in their name.
    let conventional = machine.unit_below(&[0x608, 0x700], &[0x08]);
    let message = remap(&vtd, &conventional);
    for (source, expected) in [(0x600, true), (0x7ff, true), (0x5ff, false), (0x800, false)] {
        let result = fake.interrupt(source, message.message());
        assert_eq!(result.is_ok(), expected, "{source:#x}");
    }
}

#[test]
fn an_io_apic_is_known_by_its_scope() {
    let machine = Machine::new(LEGACY);
    let vtd = machine.start();
    assert!(vtd.covers_io_apic(8) && !vtd.covers_io_apic(9));
    let level = Interrupt {
        level: true,
        ..EDGE
    };
    let line = vtd
        .remap(InterruptSource::IoApic(8), level)
        .unwrap()
        .unwrap();
    let second = vtd
        .remap(InterruptSource::IoApic(8), level)
        .unwrap()
        .unwrap();
    // The remappable format, with the vector.
    assert_eq!(line.redirection(), 1 << 48 | 0x41);
    assert_eq!(second.redirection(), 1 << 49 | 1 << 48 | 0x41);
    let id = 0xf0f8;
    let expected = 0x0001_0203 << 32 | 0x41 << 16 | 1 << 4 | 1;
    assert_eq!(machine.fake().interrupt(id, line.message()), Ok(expected));
    assert_eq!(machine.fake().interrupt(0xf0f9, line.message()), Err(0x26));
    assert!(vtd.remap(InterruptSource::IoApic(9), level).is_none());
}

#[test]
fn processors_have_ids_of_eight_bits_without_x2apic() {
    let machine = Machine::new(LEGACY);
    let vtd = machine.try_start(0, ApicMode::XApic).unwrap();
    let unit = machine.unit(DEVICE);
    let source = InterruptSource::Unit(&unit);
    assert_eq!(
        vtd.remap(source, EDGE).unwrap().unwrap_err(),
        RemapError::Destination
    );
    let near = Interrupt {
        destination: 0x7f,
        ..EDGE
    };
    let message = vtd.remap(source, near).unwrap().unwrap().message();
    let _again = vtd.remap(source, near).unwrap().unwrap();
    let expected = 0x7f00 << 32 | 0x41 << 16 | 1;
    assert_eq!(machine.fake().interrupt(DEVICE, message), Ok(expected));
}

#[test]
fn entries_come_to_an_end_and_come_back() {
    let machine = Machine::new(LEGACY);
    let vtd = machine.start();
    let unit = machine.unit(DEVICE);
    let source = InterruptSource::Unit(&unit);
    let mut entries = Vec::new();
    let error = loop {
        match vtd.remap(source, EDGE).unwrap() {
            Ok(entry) => entries.push(entry),
            Err(error) => break error,
        }
    };
    assert_eq!((entries.len(), error), (1024, RemapError::NoEntry));
    let last = entries.last().unwrap().message();
    assert!(machine.fake().interrupt(DEVICE, last).is_ok());
    entries.remove(17);
    vtd.remap(source, EDGE).unwrap().unwrap();
}

#[test]
fn interrupts_are_not_remapped_unless_the_unit_and_the_platform_can() {
    let unable = Machine::new(Config {
        remaps: false,
        ..LEGACY
    });
    let mut unwilling = Machine::new(LEGACY);
    unwilling.dmar.flags = DmarFlags::empty();
    for machine in [unable, unwilling] {
        let vtd = machine.start();
        let unit = machine.unit(DEVICE);
        assert!(vtd.remap(InterruptSource::Unit(&unit), EDGE).is_none());
        assert!(!vtd.covers_io_apic(8));
        let message = InterruptMessage {
            address: 0xfee0_0000,
            data: 0x41,
        };
        assert_eq!(machine.fake().interrupt(DEVICE, message), Ok(0x41));
    }
}
