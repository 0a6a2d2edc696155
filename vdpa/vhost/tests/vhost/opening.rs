//! Who can open which device, and what that does to it.

use vdpa::dma::Trust;
use vdpa::testing::{Resets, Traits, Translation};
use vhost_vdpa::{OpenOptions, VERSION, VhostError};

use crate::world::{NAME, World, start, translating};

#[test]
fn a_device_is_found_by_its_name_and_announced_once() {
    let world = World::new();
    assert_eq!(world.registry.names(), [NAME]);
    assert_eq!(world.run(world.registry.next()), NAME);
    let handle = world.open();
    assert_eq!(handle.node().path(), "vdpa0 -> vhost-vdpa-0");
    let other = world.run(world.registry.open("vhost-vdpa-1", OpenOptions::default()));
    assert_eq!(other.unwrap_err(), VhostError::NotFound);
}

#[test]
fn one_client_at_a_time_has_the_device() {
    let world = World::new();
    let first = world.open();
    let second = world.open_with(OpenOptions::default());
    assert_eq!(second.unwrap_err(), VhostError::Busy);
    // The loser has not disturbed the winner.
    world.run(start(&owned(first))).unwrap();
}

fn owned(handle: vhost_vdpa::VhostHandle) -> vhost_vdpa::VhostHandle {
    handle.set_owner().unwrap();
    handle
}

#[test]
fn opening_resets_the_device() {
    let world = World::new();
    world.log();
    let _handle = world.open();
    assert_eq!(world.log().first().map(String::as_str), Some("reset"));
}

#[test]
fn closing_lets_the_next_client_in_and_nothing_of_the_first_is_left() {
    let world = World::new();
    let first = world.owner();
    first
        .message(crate::world::update(&world.memory(4096), 0x10_0000))
        .unwrap();
    world.run(start(&first)).unwrap();
    world.run(first.close()).unwrap();
    assert!(world.parent.mapped(0).is_empty());
    assert_eq!(world.device.owner(), None);

    let second = world.open();
    assert_eq!(second.status().unwrap(), virtio::DeviceStatus::empty());
    assert_eq!(
        world.run(second.vring_base(0)).unwrap_err(),
        VhostError::NoOwner,
        "the next client starts afresh"
    );
}

#[test]
fn a_dropped_handle_closes_by_itself() {
    let world = World::new();
    drop(world.open());
    assert_eq!(
        world.open_with(OpenOptions::default()).unwrap_err(),
        VhostError::Busy,
        "before the task has run"
    );
    world.platform.run_until_stalled();
    drop(world.open());
}

#[test]
fn an_open_that_is_dropped_half_way_leaves_the_device_free() {
    let world = World::new();
    {
        let mut open = std::pin::pin!(world.registry.open(NAME, OpenOptions::default()));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(open.as_mut().poll(&mut cx).is_pending());
    }
    world.platform.run_until_stalled();
    drop(world.open());
    world.platform.run_until_stalled();
    assert!(world.platform.tasks().is_empty());
}

#[test]
fn a_client_of_another_version_is_refused() {
    let world = World::new();
    let options = OpenOptions {
        version: VERSION + 1,
        ..OpenOptions::default()
    };
    assert_eq!(
        world.open_with(options).unwrap_err(),
        VhostError::WrongVersion
    );
    drop(world.open());
}

#[test]
fn a_device_that_nothing_isolates_is_refused_unless_asked_for_by_name() {
    let world = World::with(Traits::default());
    let refused = world.open_with(OpenOptions::default());
    assert_eq!(refused.unwrap_err(), VhostError::NotIsolated);
    let options = OpenOptions {
        // SAFETY: the client's rings are of memory of its own.
        trust: unsafe { Trust::unsafe_no_iommu() },
        ..OpenOptions::default()
    };
    drop(world.open_with(options).unwrap());
}

#[test]
fn a_device_that_the_platform_translates_for_has_one_address_space() {
    for traits in [
        Traits {
            spaces: 2,
            ..Traits::default()
        },
        Traits {
            group_count: 2,
            ..Traits::default()
        },
    ] {
        let world = World::with(traits);
        assert!(world.registry.names().is_empty());
        assert_eq!(world.bus.driver_of(&world.device), None);
    }
    let world = World::with(translating(Translation::Whole));
    assert_eq!(world.registry.names(), [NAME]);
}

#[test]
fn a_device_that_does_not_reset_cannot_be_opened_and_can_once_it_does() {
    let world = World::new();
    world.parent.set_resets(Resets::Never);
    let result = world.open_with(OpenOptions::default());
    assert_eq!(result.unwrap_err(), VhostError::Timeout);
    world.parent.set_resets(Resets::Promptly);
    drop(world.open());
}

#[test]
fn the_tree_tells_who_has_what() {
    let world = World::new();
    let handle = world.owner();
    handle
        .message(crate::world::update(&world.memory(8192), 0x10_0000))
        .unwrap();
    let report = handle.node().report().unwrap();
    let fact = |name| {
        let found = report.facts.iter().find(|fact| fact.0 == name);
        found.map(|fact| fact.1.as_str())
    };
    assert_eq!(fact("open"), Some("yes"));
    assert_eq!(fact("mapped"), Some("8192 bytes"));
    assert_eq!(fact("mappings"), Some("1"));
}
