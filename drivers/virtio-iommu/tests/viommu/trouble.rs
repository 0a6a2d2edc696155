//! An IOMMU that does not answer, or breaks the protocol.

use std::time::Duration;

use vdpa::platform::DomainError;
use virtio::DeviceStatus;

use crate::model::{Asked, EVENTS, READ, REQUESTS, Reaction};
use crate::world::{TIMEOUT, World, map, unmap};

/// Does something to an IOMMU with a mapping, after which it is out of use.
fn assert_ends(what: &str, harm: impl FnOnce(&World)) {
    let world = World::new();
    let unit = world.unit(&[0x10]);
    let domain = world.entered(&unit);
    domain.change(&[map(0x1000, 0x1fff, 0x9000)]).unwrap();
    harm(&world);
    let before = world.platform.time();
    assert_eq!(
        domain.change(&[map(0x3000, 0x3fff, 0x9000)]),
        TIMEOUT,
        "{what}"
    );
    let waited = world.platform.time() - before;
    assert!(waited < Duration::from_secs(3), "{what}: {waited:?}");
    // From now on nobody waits.
    let before = world.platform.time();
    assert_eq!(domain.change(&[unmap(0x1000, 0x1fff)]), TIMEOUT, "{what}");
    assert!(world.iommus.isolate(&unit).is_none(), "{what}");
    assert_eq!(world.platform.time(), before, "{what}");
    assert_eq!(world.fact("state"), "broken", "{what}");
    // Nobody is in a domain after a reset, whatever the IOMMU still does.
    world.platform.run_until_stalled();
    world.model.be_honest();
    world.model.work();
    assert_eq!(world.parent.status(), DeviceStatus::empty(), "{what}");
    assert_eq!(world.model.access(0x10, 0x1000, READ), None, "{what}");
    assert_eq!(domain.change(&[unmap(0x1000, 0x1fff)]), TIMEOUT, "{what}");
    drop(domain);
    world.remove_driver();
    assert_eq!(world.memory(), 0, "{what}");
}

#[test]
fn an_iommu_that_does_not_answer_is_out_of_use() {
    assert_ends("keeps requests", |world| {
        world.model.script(|_| Reaction::Keep);
    });
}

#[test]
fn an_iommu_that_breaks_its_request_queue_is_out_of_use() {
    assert_ends("more than there is room for", |world| {
        world.model.script(|_| Reaction::DoAndMeasure(5));
    });
    assert_ends("an id of nothing", |world| {
        world
            .parent
            .with_ring(REQUESTS, |ring| ring.complete(63, 4));
    });
    assert_ends("more used than asked", |world| {
        world
            .parent
            .with_ring(REQUESTS, |ring| ring.set_used_index(60));
    });
}

#[test]
fn an_iommu_that_breaks_its_event_queue_is_out_of_use() {
    assert_ends("events", |world| {
        world.parent.with_ring(EVENTS, |ring| ring.complete(0, 25));
        world.parent.interrupt(EVENTS);
        world.platform.run_until_stalled();
    });
}

#[test]
fn an_iommu_that_asks_for_a_reset_gets_it_and_is_out_of_use() {
    assert_ends("needs a reset", |world| {
        world.parent.demand_reset();
        world.platform.run_until_stalled();
    });
}

#[test]
fn an_iommu_may_take_its_time_for_each_request() {
    let world = World::new();
    let domain = world.entered(&world.unit(&[0x10]));
    let platform = world.platform.clone();
    world.model.script(move |_| {
        platform.advance(Duration::from_millis(1900));
        Reaction::Honest
    });
    let changes = [map(0x1000, 0x1fff, 0), map(0x3000, 0x3fff, 0)];
    assert_eq!(domain.change(&changes), Ok(()));
}

#[test]
fn an_iommu_that_falls_silent_amid_a_change_is_not_believed_any_more() {
    let world = World::new();
    let domain = world.entered(&world.unit(&[0x10]));
    world.model.script(|asked| match asked {
        Asked::Map(_, 0x3000, ..) => Reaction::Keep,
        _ => Reaction::Honest,
    });
    let changes = [map(0x1000, 0x1fff, 0), map(0x3000, 0x3fff, 0)];
    assert_eq!(domain.change(&changes), TIMEOUT);
    assert_eq!(world.model.access(0x10, 0x1000, READ), Some(0));
    world.platform.run_until_stalled();
    assert_eq!(world.model.access(0x10, 0x1000, READ), None);
}

#[test]
fn entering_a_silent_iommu_fails() {
    let world = World::new();
    let domain = world.iommus.isolate(&world.unit(&[0x10])).unwrap();
    world.model.script(|_| Reaction::Keep);
    assert_eq!(domain.enter(), Err(DomainError::Timeout));
    assert_eq!(world.fact("state"), "broken");
}
