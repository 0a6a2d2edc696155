//! What isolated devices reach.

use iommu::tables::{DrhdFlags, ScopeKind};
use iommu::vtd::ApicMode;
use iommu::{Iommu, Iommus};
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::platform::{DomainChange, DomainError};

use crate::fake::{Config, LEGACY, every_kind};
use crate::machine::{DEVICE, Machine, endpoint, fact, map, map_for, range, unmap};

const MIB: u64 = 1 << 20;

#[test]
fn a_device_reaches_what_is_mapped_where_it_is_mapped_as_it_may() {
    for config in every_kind() {
        let machine = Machine::new(config);
        let vtd = machine.start();
        let (fake, (_unit, domain)) = (machine.fake(), machine.enter(&vtd, DEVICE));
        // What is not there has been looked for, and may be remembered.
        assert!(fake.read(DEVICE, 0x5000).is_err(), "{config:?}");
        domain
            .change(&[
                map(0x5000, 0x2000, 0x8000_1000),
                map_for(0x9000, 0x1000, 0x8000_5000, Permission::READ),
                map_for(0xa000, 0x1000, 0x8000_6000, Permission::WRITE),
                map(2 * MIB, 6 * MIB, 0x1_0020_0000),
            ])
            .unwrap();
        assert_eq!(fake.read(DEVICE, 0x5000), Ok(0x8000_1000), "{config:?}");
        assert_eq!(fake.write(DEVICE, 0x6fff), Ok(0x8000_2fff));
        assert!(fake.read(DEVICE, 0x7000).is_err() && fake.read(DEVICE, 0x4fff).is_err());
        assert_eq!(fake.read(DEVICE, 0x9008), Ok(0x8000_5008));
        assert!(fake.write(DEVICE, 0x9008).is_err());
        assert_eq!(fake.write(DEVICE, 0xa008), Ok(0x8000_6008));
        assert!(fake.read(DEVICE, 0xa008).is_err());
        assert_eq!(fake.read(DEVICE, 5 * MIB + 7), Ok(0x1_0050_0007));
        assert_eq!(fact(&vtd, "mapped"), format!("{} bytes", 6 * MIB + 0x4000));
        drop(domain);
        assert_eq!(fact(&vtd, "mapped"), "0 bytes");
    }
}

#[test]
fn what_was_taken_away_is_not_reached_any_more_however_often_it_was() {
    for config in every_kind() {
        let machine = Machine::new(config);
        let vtd = machine.start();
        let (fake, (_unit, domain)) = (machine.fake(), machine.enter(&vtd, DEVICE));
        domain
            .change(&[
                map(0x5000, 0x4000, 0x8000_1000),
                map(2 * MIB, 2 * MIB, 0x1_0020_0000),
            ])
            .unwrap();
        for iova in [0x5000, 0x6000, 0x7000, 0x8000, 2 * MIB, 3 * MIB] {
            fake.write(DEVICE, iova).unwrap();
        }
        let waits = fake.waits();
        // A part, a part of a large page, and another memory in place of the first page.
        domain
            .change(&[
                unmap(0x6000, 0x1000),
                unmap(3 * MIB, 0x1000),
                unmap(0x5000, 0x1000),
                map(0x5000, 0x1000, 0x9000_0000),
            ])
            .unwrap();
        assert_eq!(fake.write(DEVICE, 0x5000), Ok(0x9000_0000), "{config:?}");
        assert!(fake.write(DEVICE, 0x6000).is_err());
        assert_eq!(fake.write(DEVICE, 0x7000), Ok(0x8000_3000));
        assert!(fake.write(DEVICE, 3 * MIB).is_err());
        assert_eq!(fake.write(DEVICE, 2 * MIB), Ok(0x1_0020_0000));
        assert_eq!(fake.write(DEVICE, 3 * MIB + 0x1000), Ok(0x1_0030_1000));
        // One invalidation for what was taken away, and one for what is remembered.
        assert_eq!(fake.waits() - waits, 1 + usize::from(config.caching));
        domain
            .change(&[DomainChange::Unmap(IovaRange::ALL)])
            .unwrap();
        for iova in [0x5000, 0x7000, 2 * MIB, 3 * MIB + 0x1000] {
            assert!(fake.write(DEVICE, iova).is_err(), "{iova:#x} {config:?}");
        }
    }
}

#[test]
fn many_changes_are_invalidated_together() {
    let machine = Machine::new(LEGACY);
    let vtd = machine.start();
    let (fake, (_unit, domain)) = (machine.fake(), machine.enter(&vtd, DEVICE));
    let maps: Vec<_> = (0..64)
        .map(|page| map(page << 13, 0x1000, 0x8000_0000 + (page << 12)))
        .collect();
    let waits = fake.waits();
    domain.change(&maps).unwrap();
    assert_eq!(
        fake.waits(),
        waits,
        "nothing is remembered of what was not there"
    );
    for page in 0..64 {
        fake.read(DEVICE, page << 13).unwrap();
    }
    let unmaps: Vec<_> = (0..64).map(|page| unmap(page << 13, 0x1000)).collect();
    domain.change(&unmaps).unwrap();
    assert_eq!(fake.waits(), waits + 1);
    for page in 0..64 {
        assert!(fake.read(DEVICE, page << 13).is_err());
    }
}

#[test]
fn devices_in_two_domains_do_not_reach_each_others_memory() {
    for config in every_kind() {
        let machine = Machine::new(config);
        let vtd = machine.start();
        let fake = machine.fake();
        // In the same context table, and in scalable mode in the other one of the bus.
        for (one, other) in [(0x100, 0x101), (0x200, 0x2ff), (0x300, 0x400)] {
            let (_unit, first) = machine.enter(&vtd, one);
            let (_unit, second) = machine.enter(&vtd, other);
            first.change(&[map(0x1000, 0x1000, 0x8000_0000)]).unwrap();
            second.change(&[map(0x2000, 0x1000, 0x9000_0000)]).unwrap();
            assert_eq!(fake.read(one, 0x1000), Ok(0x8000_0000), "{config:?}");
            assert_eq!(fake.read(other, 0x2000), Ok(0x9000_0000));
            assert!(fake.read(other, 0x1000).is_err() && fake.read(one, 0x2000).is_err());
            second.change(&[map(0x1000, 0x1000, 0xa000_0000)]).unwrap();
            assert_eq!(fake.read(other, 0x1000), Ok(0xa000_0000));
            assert_eq!(fake.read(one, 0x1000), Ok(0x8000_0000));
        }
    }
}

#[test]
fn a_device_that_has_left_its_domain_reaches_nothing_and_the_tables_are_free() {
    for config in every_kind() {
        let machine = Machine::new(config);
        let vtd = machine.start();
        let fake = machine.fake();
        // The context table of the bus stays.
        drop(machine.enter(&vtd, DEVICE));
        let before = machine.platform.heap().outstanding();
        for round in 1..20_u64 {
            let (_unit, domain) = machine.enter(&vtd, DEVICE);
            // The same domain id finds nothing of the last time.
            assert!(fake.read(DEVICE, 0x1000).is_err(), "{config:?}");
            domain.change(&[map(0x1000, 0x1000, round << 12)]).unwrap();
            assert_eq!(fake.read(DEVICE, 0x1000), Ok(round << 12));
            drop(domain);
            assert!(fake.read(DEVICE, 0x1000).is_err(), "{config:?}");
        }
        assert_eq!(machine.platform.heap().outstanding(), before);
        assert_eq!(fact(&vtd, "domains"), "0");
        // Asking changes nothing.
        let (_unit, domain) = machine.enter(&vtd, DEVICE);
        domain.change(&[map(0x1000, 0x1000, 0x7000)]).unwrap();
        drop(vtd.domain(&machine.unit(DEVICE)).unwrap());
        assert_eq!(fake.read(DEVICE, 0x1000), Ok(0x7000));
    }
}

#[test]
fn all_requesters_of_a_unit_share_its_domain() {
    for config in every_kind() {
        let machine = Machine::new(config);
        let vtd = machine.start();
        let fake = machine.fake();
        let unit = machine.unit_below(&[0x500, 0x501, 0x700], &[0x08]);
        let domain = vtd.domain(&unit).unwrap();
        domain.enter().unwrap();
        domain.change(&[map(0x1000, 0x1000, 0x7000)]).unwrap();
        for source in [0x500, 0x501, 0x700] {
            assert_eq!(fake.read(source, 0x1000), Ok(0x7000));
        }
        assert!(fake.read(0x502, 0x1000).is_err());
        drop(domain);
        for source in [0x500, 0x501, 0x700] {
            assert!(fake.read(source, 0x1000).is_err(), "{config:?}");
        }
    }
}

#[test]
fn nothing_is_mapped_where_messages_go_or_beyond_the_addresses() {
    let machine = Machine::new(LEGACY);
    let vtd = machine.start();
    let (_unit, domain) = machine.enter(&vtd, DEVICE);
    assert_eq!(domain.reserved(), [range(0xfee0_0000, 0x10_0000)]);
    for (change, error) in [
        (map(0xfee0_0000, 0x1000, 0), DomainError::OutOfResources),
        (map(0xfedf_f000, 0x2000, 0), DomainError::OutOfResources),
        (map(1 << 48, 0x1000, 0), DomainError::OutOfResources),
        (map(0x1000, 0x800, 0), DomainError::Misaligned),
        (unmap(0x1800, 0x1000), DomainError::Misaligned),
    ] {
        assert_eq!(domain.change(&[change]), Err(error), "{change:x?}");
    }
    domain
        .change(&[map((1 << 48) - 0x1000, 0x1000, 0)])
        .unwrap();
}

#[test]
fn domain_ids_come_to_an_end_and_come_back() {
    let machine = Machine::new(Config {
        domains: 0,
        caching: true,
        ..LEGACY
    });
    let vtd = machine.start();
    let mut domains: Vec<_> = (0..15).map(|id| machine.enter(&vtd, 0x100 + id)).collect();
    assert!(vtd.domain(&machine.unit(0x200)).is_none());
    domains.pop();
    // That of the domain that has gone, with nothing of it.
    let (_unit, domain) = machine.enter(&vtd, 0x200);
    domain.change(&[map(0x1000, 0x1000, 0x7000)]).unwrap();
    assert_eq!(machine.fake().read(0x200, 0x1000), Ok(0x7000));
}

#[test]
fn each_unit_has_its_devices_and_the_last_one_all_others() {
    let mut machine = Machine::new(LEGACY);
    let mut bridge = endpoint(0, &[0x1c << 3]);
    bridge.kind = ScopeKind::Bridge;
    let none = DrhdFlags::empty();
    machine.add_unit(
        Config {
            scalable: true,
            ..LEGACY
        },
        none,
        vec![bridge],
    );
    machine.add_unit(
        LEGACY,
        none,
        vec![endpoint(0, &[0x10]), endpoint(0, &[0x18, 0x08])],
    );
    let iommus = Iommus::new();
    for index in 0..3 {
        iommus.add(machine.try_start(index, ApicMode::XApic).unwrap());
    }
    let name = |ids: &[u32], bridges: &[u32]| {
        let unit = machine.unit_below(ids, bridges);
        iommus.of(&unit).map(|iommu| iommu.name())
    };
    assert_eq!(name(&[0x10], &[]).unwrap(), "dmar0");
    // By a path over the bridge 00:03.0, whatever its bus is called.
    assert_eq!(name(&[0x708], &[0x18]).unwrap(), "dmar0");
    // Anything below the bridge 00:1c.0, and the bridge.
    assert_eq!(name(&[0x300], &[0xe0]).unwrap(), "dmar1");
    assert_eq!(name(&[0x542], &[0xe0, 0x300]).unwrap(), "dmar1");
    assert_eq!(name(&[0xe0], &[]).unwrap(), "dmar1");
    assert_eq!(name(&[0x708], &[0x20]).unwrap(), "dmar2");
    assert_eq!(name(&[0x11], &[]).unwrap(), "dmar2");
    assert_eq!(name(&[0x1_0010], &[]), None, "another segment");

    // And only that unit translates for it.
    let domain = iommus
        .isolate(&machine.unit_below(&[0x300], &[0xe0]))
        .unwrap();
    domain.enter().unwrap();
    domain.change(&[map(0x1000, 0x1000, 0x7000)]).unwrap();
    assert_eq!(machine.fakes[1].read(0x300, 0x1000), Ok(0x7000));
    assert!(machine.fakes[0].read(0x300, 0x1000).is_err());
    assert!(machine.fakes[2].read(0x300, 0x1000).is_err());
}

#[test]
fn a_unit_with_a_pasid_gets_no_domain() {
    let machine = Machine::new(Config {
        scalable: true,
        ..LEGACY
    });
    let vtd = machine.start();
    let node = vdpa::Node::root("adi");
    let unit = vdpa::dma::IsolationUnit::new(&node, Some(0x100), Some(5));
    assert!(vtd.domain(&unit).is_none());
}
