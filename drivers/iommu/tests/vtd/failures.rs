//! What happens when a unit stands still, or memory is short.

use iommu::{Interrupt, InterruptSource, Iommu, RemapError};
use vdpa::platform::DomainError;
use virtq::testing::HeapDma;

use crate::fake::{LEGACY, every_kind};
use crate::machine::{DEVICE, Machine, fact, map, unmap};

#[test]
fn what_is_not_confirmed_is_put_back_and_keeps_its_memory() {
    for config in every_kind() {
        for refuses in [false, true] {
            let machine = Machine::new(config);
            let vtd = machine.start();
            let (fake, (_unit, domain)) = (machine.fake(), machine.enter(&vtd, DEVICE));
            domain.change(&[map(0x1000, 0x2000, 0x7000)]).unwrap();
            fake.read(DEVICE, 0x1000).unwrap();
            let memory = machine.platform.heap().outstanding();
            if refuses {
                fake.refuse_descriptors();
            } else {
                fake.set_stuck(true);
            }
            let changes = [unmap(0x1000, 0x2000), map(0x1000, 0x1000, 0xb000)];
            assert_eq!(
                domain.change(&changes),
                Err(DomainError::Timeout),
                "{config:?}"
            );
            assert_eq!(fake.read(DEVICE, 0x1000), Ok(0x7000));
            assert_eq!(fake.read(DEVICE, 0x2000), Ok(0x8000));
            // From now on nothing is changed any more, even if it goes on.
            fake.set_stuck(false);
            let more = [map(0x9000, 0x1000, 0xb000)];
            assert_eq!(domain.change(&more), Err(DomainError::Timeout));
            assert!(fake.read(DEVICE, 0x9000).is_err());
            let other = vtd.domain(&machine.unit(0x108)).unwrap();
            assert_eq!(other.enter(), Err(DomainError::Timeout));
            assert!(fake.read(0x108, 0x1000).is_err());
            assert_eq!(fact(&vtd, "state"), "does not answer");
            drop(domain);
            // The unit may walk the tables still.
            assert!(machine.platform.heap().outstanding() >= memory);
            let _ = fake.read(DEVICE, 0x1000);
        }
    }
}

#[test]
fn a_mapping_that_may_be_in_use_is_not_taken_back_without_confirmation() {
    for config in every_kind().into_iter().filter(|config| config.caching) {
        let machine = Machine::new(config);
        let vtd = machine.start();
        let (fake, (_unit, domain)) = (machine.fake(), machine.enter(&vtd, DEVICE));
        fake.set_stuck(true);
        // Whoever is told of success keeps the memory.
        domain.change(&[map(0x1000, 0x1000, 0x7000)]).unwrap();
        assert_eq!(
            domain.change(&[unmap(0x1000, 0x1000)]),
            Err(DomainError::Timeout)
        );
        assert_eq!(fake.read(DEVICE, 0x1000), Ok(0x7000));
    }
}

#[test]
fn without_memory_for_tables_nothing_changes() {
    let mut refused = 0;
    for config in every_kind() {
        for pages in 8..24 {
            let heap = HeapDma::limited(pages << 12);
            let machine = Machine::with_heap(config, heap);
            let Ok(vtd) = machine.try_start(0, iommu::vtd::ApicMode::XApic) else {
                continue;
            };
            let fake = machine.fake();
            let Some(domain) = vtd.domain(&machine.unit(DEVICE)) else {
                continue;
            };
            if let Err(error) = domain.enter() {
                assert_eq!(error, DomainError::OutOfResources);
                assert!(fake.read(DEVICE, 0x1000).is_err());
                continue;
            }
            let before = machine.platform.heap().outstanding();
            let changes = [map(0x1000, 0x1000, 0x7000), map(1 << 38, 0x1000, 0x7000)];
            match domain.change(&changes) {
                Ok(()) => assert_eq!(fake.read(DEVICE, 0x1000), Ok(0x7000)),
                Err(error) => {
                    refused += 1;
                    assert_eq!(error, DomainError::OutOfResources);
                    assert!(fake.read(DEVICE, 0x1000).is_err());
                    assert_eq!(machine.platform.heap().outstanding(), before);
                }
            }
        }
    }
    assert!(refused > 5);
}

#[test]
fn an_interrupt_that_is_not_confirmed_to_be_gone_keeps_its_entry() {
    let machine = Machine::new(LEGACY);
    let vtd = machine.start();
    let unit = machine.unit(DEVICE);
    let interrupt = Interrupt {
        vector: 0x41,
        destination: 0,
        level: false,
    };
    let source = InterruptSource::Unit(&unit);
    let entry = vtd.remap(source, interrupt).unwrap().unwrap();
    machine.fake().set_stuck(true);
    drop(entry);
    assert_eq!(fact(&vtd, "interrupts"), "1");
    let more = vtd.remap(source, interrupt).unwrap();
    assert_eq!(more.unwrap_err(), RemapError::Timeout);
}
