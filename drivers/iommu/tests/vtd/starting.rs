//! Turning units on, whatever firmware has left.

use iommu::Iommu;
use iommu::vtd::{ApicMode, VtdError};
use virtq::testing::HeapDma;

use crate::fake::{Config, LEGACY, every_kind};
use crate::machine::{DEVICE, Machine, fact};

#[test]
fn a_unit_is_on_once_it_has_forgotten_everything_and_refuses_what_is_in_no_domain() {
    for config in every_kind() {
        let machine = Machine::new(config);
        let vtd = machine.start();
        let fake = machine.fake();
        assert!(fake.is_on() && !fake.protects_ranges(), "{config:?}");
        assert!(fake.read(DEVICE, 0x1000).is_err(), "{config:?}");
        assert!(fake.write(0x08, 0x1000).is_err());
        assert_eq!(fake.flushes() > 0, config.buffers_writes);
        assert_eq!(vtd.name(), "dmar0");
        assert_eq!(fact(&vtd, "domains"), "0");
    }
}

#[test]
fn the_levels_are_as_many_as_the_addresses_need_and_the_unit_has() {
    for (sagaw, address_bits, expected) in [
        (0b0110, 39, "3 levels, 39 bits"),
        (0b0110, 48, "4 levels, 48 bits"),
        (0b0010, 48, "3 levels, 39 bits"),
        (0b1110, 52, "5 levels, 52 bits"),
        (0b1000, 39, "5 levels, 39 bits"),
    ] {
        let machine = Machine::new(Config {
            sagaw,
            address_bits,
            ..LEGACY
        });
        let vtd = machine.start();
        let report = fact(&vtd, "translation");
        assert!(report.contains(expected), "{report}");
        let domain = vtd.domain(&machine.unit(DEVICE)).unwrap();
        let bits = 64 - domain.iova_ranges()[0].last().leading_zeros();
        assert!(expected.ends_with(&format!(", {bits} bits")));
    }
}

#[test]
fn a_unit_that_cannot_be_used_is_refused() {
    let without_levels = Config {
        sagaw: 0b0001,
        ..LEGACY
    };
    let machine = Machine::new(without_levels);
    let result = machine.try_start(0, ApicMode::XApic);
    assert_eq!(result.unwrap_err(), VtdError::Unsupported);
    let result = machine.try_start(1, ApicMode::XApic);
    assert_eq!(result.unwrap_err(), VtdError::NoUnit);

    let mut machine = Machine::new(LEGACY);
    machine.dmar.units[0].base += 0x10_0000;
    let result = machine.try_start(0, ApicMode::XApic);
    assert_eq!(result.unwrap_err(), VtdError::Registers);

    let machine = Machine::with_heap(LEGACY, HeapDma::limited(0x2000));
    let result = machine.try_start(0, ApicMode::XApic);
    assert_eq!(result.unwrap_err(), VtdError::OutOfMemory);
    assert_eq!(machine.platform.heap().outstanding(), 0);
}

#[test]
fn a_unit_that_does_not_answer_is_turned_off_again() {
    for refuses in [false, true] {
        let machine = Machine::new(LEGACY);
        if refuses {
            machine.fake().refuse_descriptors();
        } else {
            machine.fake().set_stuck(true);
        }
        let result = machine.try_start(0, ApicMode::XApic);
        assert_eq!(result.unwrap_err(), VtdError::Timeout);
        assert!(!machine.fake().is_on());
    }
}

#[test]
fn a_unit_without_a_vector_is_looked_at_now_and_then() {
    let machine = Machine::new(LEGACY);
    machine.platform.limit_vectors(0);
    let vtd = machine.start();
    assert!(machine.fake().read(DEVICE, 0x1000).is_err());
    machine.settle();
    assert_eq!(fact(&vtd, "dma_faults"), "1");
}
