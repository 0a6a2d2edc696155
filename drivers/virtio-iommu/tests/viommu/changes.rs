//! Changes of what a domain maps, with all or nothing.

use vdpa::iotlb::Permission;
use vdpa::platform::{DomainChange, DomainError};
use virtq::DmaAddr;

use crate::model::{Asked, DEVICE_ERROR, NO_MEMORY, READ, REQUESTS, Reaction, WRITE};
use crate::world::{Setup, World, map, range, unmap};

#[test]
fn permissions_are_the_iommus() {
    let world = World::new();
    let domain = world.entered(&world.unit(&[0x10]));
    for (page, permission) in [Permission::READ, Permission::WRITE]
        .into_iter()
        .enumerate()
    {
        let first = page as u64 * 0x1000;
        let change = DomainChange::Map {
            range: range(first, first + 0xfff),
            permission,
            addr: DmaAddr(0x9000),
        };
        domain.change(&[change]).unwrap();
    }
    assert!(world.model.access(0x10, 0, READ).is_some());
    assert!(world.model.access(0x10, 0, WRITE).is_none());
    assert!(world.model.access(0x10, 0x1000, WRITE).is_some());
    assert!(world.model.access(0x10, 0x1000, READ).is_none());
}

#[test]
fn a_mapping_is_one_request_however_long_it_is() {
    let world = World::new();
    let domain = world.entered(&world.unit(&[0x10]));
    world.model.take_asked();
    domain
        .change(&[map(0x10_0000, 0x4fff_ffff, 0x1_0000_0000)])
        .unwrap();
    let expected = Asked::Map(0, 0x10_0000, 0x4fff_ffff, 0x1_0000_0000, READ | WRITE);
    assert_eq!(world.model.take_asked(), [expected]);
}

#[test]
fn changes_are_sent_together() {
    let world = World::new();
    let domain = world.entered(&world.unit(&[0x10]));
    let pages = (0..4096).map(|page| page * 0x1000);
    let changes: Vec<_> = pages
        .map(|first| map(first, first + 0xfff, first))
        .collect();
    let kicks = world.parent.kick(REQUESTS);
    let before = kicks.count();
    domain.change(&changes).unwrap();
    // As many at a time as fit the queue of 64 entries.
    assert_eq!(kicks.count() - before, 4096 / 32);
    assert_eq!(world.model.mapped(0).len(), 4096);
    let before = kicks.count();
    domain.change(&[unmap(0, u64::MAX)]).unwrap();
    assert_eq!(kicks.count() - before, 4096 / 32);
    assert_eq!(world.model.mapped(0), []);
}

#[test]
fn what_is_left_of_a_mapping_stays_mapped() {
    let world = World::new();
    let domain = world.entered(&world.unit(&[0x10]));
    domain.change(&[map(0x1000, 0x8fff, 0x9_0000)]).unwrap();
    domain.change(&[unmap(0x3000, 0x4fff)]).unwrap();
    for (addr, expected) in [
        (0x1000, Some(0x9_0000)),
        (0x2fff, Some(0x9_1fff)),
        (0x3000, None),
        (0x4fff, None),
        (0x5000, Some(0x9_4000)),
        (0x8fff, Some(0x9_7fff)),
    ] {
        assert_eq!(world.model.access(0x10, addr, WRITE), expected, "{addr:#x}");
    }
    domain.change(&[unmap(0, u64::MAX)]).unwrap();
    assert_eq!(world.model.mapped(0), []);
}

#[test]
fn pages_need_not_have_4_kib() {
    let mut setup = Setup::default();
    setup.traits.page_mask = 0x1_0000;
    setup.traits.input = (0x8000, 0x7_ffff);
    let world = setup.start();
    let domain = world.entered(&world.unit(&[0x10]));
    assert_eq!(domain.iova_ranges(), [range(0x1_0000, 0x7_ffff)]);
    world.model.take_asked();
    for wrong in [
        map(0x1_0000, 0x1_0fff, 0),
        map(0x1_1000, 0x1_ffff, 0),
        map(0x1_0000, 0x1_ffff, 0x1000),
        unmap(0x1_0000, 0x1_0fff),
    ] {
        assert_eq!(domain.change(&[wrong]), Err(DomainError::Misaligned));
    }
    for wrong in [map(0, 0xffff, 0), map(0x7_0000, 0x8_ffff, 0)] {
        assert_eq!(domain.change(&[wrong]), Err(DomainError::Refused));
    }
    assert_eq!(world.model.take_asked(), []);
    domain
        .change(&[map(0x1_0000, 0x3_ffff, 0x10_0000)])
        .unwrap();
    domain.change(&[unmap(0x2_0000, 0x2_ffff)]).unwrap();
    assert_eq!(world.model.access(0x10, 0x3_0000, READ), Some(0x12_0000));
    assert_eq!(world.model.access(0x10, 0x2_0000, READ), None);
}

#[test]
fn the_last_address_can_be_mapped() {
    let world = World::new();
    let domain = world.entered(&world.unit(&[0x10]));
    domain
        .change(&[map(u64::MAX - 0x1fff, u64::MAX, 0x4000)])
        .unwrap();
    domain
        .change(&[unmap(u64::MAX - 0x1fff, u64::MAX - 0x1000)])
        .unwrap();
    assert_eq!(world.model.access(0x10, u64::MAX, READ), Some(0x5fff));
}

/// Refuses the request that comes after `skip` others.
fn refuse_after(world: &World, skip: usize, status: u8) {
    let mut left = Some(skip);
    world.model.script(move |_| match left {
        Some(0) => {
            left = None;
            Reaction::Refuse(status)
        }
        Some(more) => {
            left = Some(more - 1);
            Reaction::Honest
        }
        None => Reaction::Honest,
    });
}

#[test]
fn a_change_is_made_as_a_whole_or_not_at_all() {
    // Two maps, then an unmap with a rest, then a map: five requests.
    let changes = [
        map(0x1_0000, 0x1_0fff, 0x1000),
        map(0x2_0000, 0x2_0fff, 0x2000),
        unmap(0x2000, 0x2fff),
        map(0x2000, 0x2fff, 0x3000),
    ];
    for status in [NO_MEMORY, DEVICE_ERROR] {
        for skip in 0.. {
            let world = World::new();
            let domain = world.entered(&world.unit(&[0x10]));
            domain.change(&[map(0x1000, 0x2fff, 0x9000)]).unwrap();
            let before = world.model.mapped(0);
            refuse_after(&world, skip, status);
            let result = domain.change(&changes);
            if result.is_ok() {
                assert_eq!(skip, 5);
                break;
            }
            let expected = match status {
                NO_MEMORY => DomainError::OutOfResources,
                _ => DomainError::Refused,
            };
            assert_eq!(result, Err(expected));
            assert_eq!(world.model.mapped(0), before, "request {skip}");
            world.model.be_honest();
            assert_eq!(domain.change(&changes), Ok(()), "request {skip}");
        }
    }
}

#[test]
fn a_map_of_which_nobody_knows_whether_it_was_made_is_taken_away() {
    for doubtful in [
        Reaction::DoAndSay(1),
        Reaction::DoAndSay(DEVICE_ERROR),
        Reaction::DoAndSay(7),
        Reaction::DoAndSay(9),
        Reaction::DoAndSay(0xff),
        Reaction::DoSilently,
        Reaction::DoAndMeasure(0),
    ] {
        let world = World::new();
        let domain = world.entered(&world.unit(&[0x10]));
        world.model.script(move |asked| match asked {
            Asked::Map(..) => doubtful,
            _ => Reaction::Honest,
        });
        let result = domain.change(&[map(0x1000, 0x1fff, 0x9000)]);
        assert_eq!(result, Err(DomainError::Refused), "{doubtful:?}");
        assert_eq!(world.model.mapped(0), [], "{doubtful:?}");
        assert_eq!(world.fact("state"), "on");
    }
}

#[test]
fn memory_that_is_not_let_go_of_stays_mapped_until_it_is() {
    let world = World::new();
    let domain = world.entered(&world.unit(&[0x10]));
    domain.change(&[map(0x1000, 0x1fff, 0x9000)]).unwrap();
    refuse_after(&world, 0, DEVICE_ERROR);
    assert_eq!(
        domain.change(&[unmap(0x1000, 0x1fff)]),
        Err(DomainError::Refused)
    );
    assert_eq!(world.fact("mapped"), "4.00 KiB");
    domain.change(&[unmap(0x1000, 0x1fff)]).unwrap();
    assert_eq!(world.model.mapped(0), []);
}

#[test]
fn a_change_that_cannot_be_taken_back_ends_the_iommu() {
    let world = World::new();
    let domain = world.entered(&world.unit(&[0x10]));
    world.model.script(|asked| match asked {
        Asked::Map(_, 0x3000, ..) => Reaction::Refuse(NO_MEMORY),
        Asked::Unmap(..) => Reaction::Refuse(DEVICE_ERROR),
        _ => Reaction::Honest,
    });
    let changes = [map(0x1000, 0x1fff, 0x9000), map(0x3000, 0x3fff, 0x9000)];
    assert_eq!(domain.change(&changes), Err(DomainError::OutOfResources));
    assert_eq!(world.fact("state"), "broken");
    world.platform.run_until_stalled();
    assert_eq!(world.model.access(0x10, 0x1000, READ), None);
}

#[test]
fn what_cannot_be_mapped_again_is_known_to_be_lost() {
    let world = World::new();
    let domain = world.entered(&world.unit(&[0x10]));
    domain.change(&[map(0x1000, 0x2fff, 0x9000)]).unwrap();
    world.model.script(|asked| match asked {
        Asked::Map(..) => Reaction::Refuse(NO_MEMORY),
        _ => Reaction::Honest,
    });
    assert_eq!(
        domain.change(&[unmap(0x1000, 0x1fff)]),
        Err(DomainError::OutOfResources)
    );
    assert_eq!(world.fact("mapped"), "0 B");
    world.model.be_honest();
    domain.change(&[unmap(0x1000, 0x2fff)]).unwrap();
    domain.change(&[map(0x1000, 0x2fff, 0x9000)]).unwrap();
    assert_eq!(world.model.access(0x10, 0x1000, READ), Some(0x9000));
}
