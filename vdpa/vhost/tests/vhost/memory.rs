//! What a client maps: addresses, permissions, quota, batches.

use vdpa::dma::Trust;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{Abilities, OpError};
use vdpa::testing::{Traits, Translation};
use vhost_vdpa::{IotlbMessage, OpenOptions, VhostError, VhostHandle};
use virtq::DeviceMemory;

use crate::world::{
    FIRST, LAST, NO_FEATURES, World, agree, invalidate, reset, translating, update, update_in,
};

const PAGE: u64 = 4096;

fn range(first: u64, len: u64) -> IovaRange {
    IovaRange::new(first, len).unwrap()
}

fn ranges(world: &World, asid: u16) -> Vec<IovaRange> {
    world.parent.mapped(asid).iter().map(|m| m.0).collect()
}

fn begin(asid: u16) -> IotlbMessage {
    IotlbMessage::BatchBegin { asid }
}

fn end(asid: u16) -> IotlbMessage {
    IotlbMessage::BatchEnd { asid }
}

#[test]
fn an_update_maps_with_its_permission_and_an_invalidate_takes_it_away() {
    for translation in [Translation::Incremental, Translation::Whole] {
        let world = World::with(translating(translation));
        let handle = world.owner();
        let memory = world.memory(3 * 4096);
        let part = IotlbMessage::Update {
            asid: 1,
            iova: FIRST,
            size: PAGE,
            memory: DeviceMemory::open(&memory).unwrap(),
            offset: 2 * PAGE,
            permission: Permission::READ,
        };
        handle.message(part).unwrap();
        let mapped = [(range(FIRST, PAGE), Permission::READ)];
        assert_eq!(world.parent.mapped(1), mapped);
        assert!(world.parent.mapped(0).is_empty());
        handle
            .message(IotlbMessage::Invalidate {
                asid: 1,
                iova: FIRST,
                size: PAGE,
            })
            .unwrap();
        assert!(world.parent.mapped(1).is_empty());
    }
}

#[test]
fn an_invalidate_splits_what_reaches_beyond_it() {
    let world = World::new();
    let handle = world.owner();
    handle
        .message(update(&world.memory(4 * 4096), FIRST))
        .unwrap();
    handle.message(invalidate(FIRST + PAGE, PAGE)).unwrap();
    let rest = [range(FIRST, PAGE), range(FIRST + 2 * PAGE, 2 * PAGE)];
    assert_eq!(ranges(&world, 0), rest);
    // Nothing is mapped there any more, which is no error.
    assert_eq!(handle.message(invalidate(FIRST + PAGE, PAGE)), Ok(()));
}

#[test]
fn addresses_that_make_no_range_are_refused() {
    let world = World::new();
    let handle = world.owner();
    let memory = world.memory(4096);
    let change = |change: fn(&mut u64, &mut u64, &mut u64, &mut Permission)| {
        let (mut iova, mut size, mut offset) = (FIRST, PAGE, 0);
        let mut permission = Permission::READ;
        change(&mut iova, &mut size, &mut offset, &mut permission);
        handle.message(IotlbMessage::Update {
            asid: 0,
            iova,
            size,
            memory: DeviceMemory::open(&memory).unwrap(),
            offset,
            permission,
        })
    };
    let empty = change(|_, size, _, _| *size = 0);
    assert_eq!(empty, Err(VhostError::EmptyRange));
    let wraps = change(|iova, _, _, _| *iova = u64::MAX - PAGE + 2);
    assert_eq!(wraps, Err(VhostError::RangeWraps));
    let low = change(|iova, _, _, _| *iova = FIRST - 1);
    assert_eq!(low, Err(VhostError::NotReachable));
    let high = change(|iova, _, _, _| *iova = LAST - PAGE + 2);
    assert_eq!(high, Err(VhostError::NotReachable));
    let last = change(|iova, _, _, _| *iova = u64::MAX - PAGE + 1);
    assert_eq!(last, Err(VhostError::NotReachable));
    let long = change(|_, size, _, _| *size = PAGE + 1);
    assert_eq!(long, Err(VhostError::BeyondMemory));
    let beyond = change(|_, _, offset, _| *offset = 1);
    assert_eq!(beyond, Err(VhostError::BeyondMemory));
    let far = change(|_, _, offset, _| *offset = u64::MAX);
    assert_eq!(far, Err(VhostError::BeyondMemory));
    let nothing = change(|_, _, _, permission| *permission = Permission::empty());
    assert_eq!(nothing, Err(VhostError::NoPermission));
    let strange = change(|_, _, _, permission| *permission = Permission::from_bits_retain(8));
    assert_eq!(strange, Err(VhostError::NoPermission));
    assert!(world.parent.mapped(0).is_empty());

    assert_eq!(change(|_, _, _, _| ()), Ok(()));
    assert_eq!(change(|_, _, _, _| ()), Err(VhostError::Exists));
    let touches = change(|iova, _, _, _| *iova = FIRST + PAGE - 1);
    assert_eq!(touches, Err(VhostError::Exists));
    assert_eq!(
        handle.message(invalidate(FIRST, 0)),
        Err(VhostError::EmptyRange)
    );
    assert_eq!(
        handle.message(invalidate(1, u64::MAX)),
        Ok(()),
        "the last address belongs to it"
    );
    assert_eq!(
        handle.message(invalidate(2, u64::MAX)),
        Err(VhostError::RangeWraps)
    );
}

#[test]
fn another_address_space_has_to_exist_and_to_be_agreed_on() {
    let world = World::new();
    let handle = world.owner();
    let memory = world.memory(4096);
    assert_eq!(handle.message(update_in(2, &memory, FIRST)), Ok(()));
    for asid in [3, u16::MAX] {
        assert_eq!(
            handle.message(update_in(asid, &memory, FIRST)),
            Err(VhostError::Invalid)
        );
        assert_eq!(world.run(handle.settle(asid)), Err(VhostError::Invalid));
    }
    handle.set_backend_features(NO_FEATURES).unwrap();
    assert_eq!(
        handle.message(update_in(1, &memory, FIRST)),
        Err(VhostError::Invalid)
    );
    assert_eq!(handle.message(update_in(0, &memory, FIRST)), Ok(()));
}

#[test]
fn every_mapping_counts_against_the_quota() {
    let world = World::new();
    let handle = world.owner_with(OpenOptions {
        quota: 3 * PAGE,
        ..OpenOptions::default()
    });
    let memory = world.memory(4096);
    handle.message(update(&memory, FIRST)).unwrap();
    handle.message(update_in(1, &memory, FIRST)).unwrap();
    handle.message(update(&memory, FIRST + PAGE)).unwrap();
    let more = || handle.message(update(&memory, FIRST + 2 * PAGE));
    assert_eq!(more(), Err(VhostError::OverQuota));
    handle.message(invalidate(FIRST, 1)).unwrap();
    assert_eq!(more(), Err(VhostError::OverQuota), "a byte too few");
    handle.message(invalidate(FIRST, PAGE)).unwrap();
    assert_eq!(more(), Ok(()));
}

#[test]
fn the_number_of_mappings_is_limited_also_by_splitting() {
    let world = World::new();
    let handle = world.owner_with(OpenOptions {
        mappings: 2,
        ..OpenOptions::default()
    });
    let memory = world.memory(4096);
    handle.message(update(&memory, FIRST)).unwrap();
    handle.message(update_in(2, &memory, FIRST)).unwrap();
    assert_eq!(
        handle.message(update(&memory, FIRST + PAGE)),
        Err(VhostError::TooManyMappings)
    );
    assert_eq!(
        handle.message(invalidate(FIRST + 1, 1)),
        Err(VhostError::TooManyMappings)
    );
    assert_eq!(ranges(&world, 0), [range(FIRST, PAGE)]);
    handle.message(invalidate(FIRST, 1)).unwrap();
    handle.message(invalidate(FIRST, PAGE)).unwrap();
    handle.message(update(&memory, FIRST + PAGE)).unwrap();
}

#[test]
fn a_batch_is_told_to_the_device_as_one_change() {
    let world = World::with(translating(Translation::Whole));
    let handle = world.owner();
    let memory = world.memory(4096);
    world.log();
    handle.message(begin(0)).unwrap();
    for page in 0..3 {
        handle
            .message(update(&memory, FIRST + page * PAGE))
            .unwrap();
    }
    handle.message(invalidate(FIRST, PAGE)).unwrap();
    assert!(world.parent.mapped(0).is_empty());
    handle.message(end(0)).unwrap();
    assert_eq!(world.log(), ["set_map(0, 2 mappings)"]);
    assert_eq!(world.parent.mapped(0).len(), 2);
}

#[test]
fn the_end_of_a_batch_that_the_device_refuses_takes_all_of_it_back() {
    let world = World::with(translating(Translation::Whole));
    let handle = world.owner_with(OpenOptions {
        mappings: 2,
        ..OpenOptions::default()
    });
    let memory = world.memory(4096);
    handle.message(update(&memory, FIRST)).unwrap();
    let before = world.parent.mapped(0);
    handle.message(begin(0)).unwrap();
    handle.message(invalidate(FIRST, PAGE)).unwrap();
    handle.message(update(&memory, FIRST + PAGE)).unwrap();
    handle.message(update(&memory, FIRST + 2 * PAGE)).unwrap();
    world.parent.fail_after(0, OpError::OutOfResources);
    assert_eq!(handle.message(end(0)), Err(VhostError::OutOfResources));
    assert_eq!(world.parent.mapped(0), before);
    // The first mapping is there again, and counted.
    assert_eq!(
        handle.message(update(&memory, FIRST)),
        Err(VhostError::Exists)
    );
    assert_eq!(handle.message(update(&memory, FIRST + PAGE)), Ok(()));
    assert_eq!(
        handle.message(update(&memory, FIRST + 2 * PAGE)),
        Err(VhostError::TooManyMappings)
    );
}

#[test]
fn a_message_that_fails_in_a_batch_is_none_of_it() {
    let world = World::with(translating(Translation::Whole));
    let handle = world.owner();
    let memory = world.memory(4096);
    handle.message(begin(0)).unwrap();
    handle.message(update(&memory, FIRST)).unwrap();
    assert_eq!(
        handle.message(update(&memory, FIRST)),
        Err(VhostError::Exists)
    );
    handle.message(end(0)).unwrap();
    assert_eq!(ranges(&world, 0), [range(FIRST, PAGE)]);
}

#[test]
fn a_batch_is_about_one_address_space() {
    let world = World::new();
    let handle = world.owner();
    let memory = world.memory(4096);
    assert_eq!(handle.message(end(0)), Err(VhostError::Invalid));
    handle.message(begin(1)).unwrap();
    for message in [update(&memory, FIRST), end(0), begin(0), begin(1)] {
        assert_eq!(handle.message(message), Err(VhostError::Invalid));
    }
    assert_eq!(handle.message(end(1)), Ok(()));
    handle.set_backend_features(NO_FEATURES).unwrap();
    assert_eq!(handle.message(begin(0)), Err(VhostError::Unsupported));
}

#[test]
fn a_reset_ends_a_batch() {
    let world = World::with(translating(Translation::Whole));
    let handle = world.owner();
    let memory = world.memory(4096);
    handle.message(begin(1)).unwrap();
    handle.message(update_in(1, &memory, FIRST)).unwrap();
    world.run(handle.set_status(reset())).unwrap();
    assert_eq!(ranges(&world, 1), [range(FIRST, PAGE)]);
    assert_eq!(handle.message(end(1)), Err(VhostError::Invalid));
    assert_eq!(handle.message(begin(0)), Ok(()));
}

#[test]
fn mappings_survive_a_reset_if_that_has_been_agreed_on() {
    for translation in [Translation::Incremental, Translation::Whole] {
        let world = World::with(translating(translation));
        let handle = world.owner();
        let memory = world.memory(4096);
        handle.message(update(&memory, FIRST)).unwrap();
        handle.message(update_in(2, &memory, FIRST)).unwrap();
        world.run(agree(&handle, vdpa::Features::EMPTY)).unwrap();
        world.run(handle.set_status(reset())).unwrap();
        assert_eq!(ranges(&world, 0), [range(FIRST, PAGE)]);
        assert_eq!(ranges(&world, 2), [range(FIRST, PAGE)]);
        handle.set_backend_features(NO_FEATURES).unwrap();
        world.run(handle.set_status(reset())).unwrap();
        assert!(world.parent.mapped(0).is_empty());
        assert!(world.parent.mapped(2).is_empty());
        assert_eq!(handle.message(update(&memory, FIRST)), Ok(()));
    }
}

#[test]
fn a_device_that_forgets_its_mappings_in_a_reset_cannot_be_asked_to_keep_them() {
    let world = World::with(Traits {
        abilities: Abilities::empty(),
        ..translating(Translation::Incremental)
    });
    let handle = world.owner();
    let memory = world.memory(4096);
    handle.message(update(&memory, FIRST)).unwrap();
    world.run(handle.set_status(reset())).unwrap();
    // Both sides have forgotten.
    assert!(world.parent.mapped(0).is_empty());
    assert_eq!(handle.message(update(&memory, FIRST)), Ok(()));
    assert_eq!(ranges(&world, 0), [range(FIRST, PAGE)]);
}

#[test]
fn settling_waits_for_the_device() {
    let world = World::new();
    let handle = world.owner();
    handle.message(update(&world.memory(4096), FIRST)).unwrap();
    handle.message(invalidate(FIRST, PAGE)).unwrap();
    world.log();
    world.run(handle.settle(0)).unwrap();
    assert_eq!(world.log(), ["settle(0)"]);
    world.parent.fail_after(0, OpError::Timeout);
    assert_eq!(world.run(handle.settle(0)), Err(VhostError::Timeout));
}

#[test]
fn where_nobody_translates_memory_is_mapped_where_it_lies() {
    let world = World::with(Traits::default());
    let handle = world.owner_with(OpenOptions {
        // SAFETY: the client's rings are of memory of its own.
        trust: unsafe { Trust::unsafe_no_iommu() },
        ..OpenOptions::default()
    });
    let memory = world.memory(4096);
    let address = platform_addr(&memory);
    assert_eq!(
        handle.message(update(&memory, address + PAGE)),
        Err(VhostError::NotReachable)
    );
    assert_eq!(handle.message(update(&memory, address)), Ok(()));
}

fn platform_addr(memory: &virtq::SharedMemory) -> u64 {
    memory.platform_addr().unwrap().0
}

#[test]
fn memory_lives_as_long_as_it_is_mapped() {
    let world = World::new();
    let handle = world.owner();
    let used = || world.platform.heap().outstanding();
    let before = used();
    handle.message(update(&world.memory(4096), FIRST)).unwrap();
    assert_eq!(used(), before + 4096);
    handle.message(invalidate(FIRST, PAGE)).unwrap();
    assert_eq!(used(), before);
    close(&world, handle);
}

fn close(world: &World, handle: VhostHandle) {
    world.run(handle.close()).unwrap();
}
