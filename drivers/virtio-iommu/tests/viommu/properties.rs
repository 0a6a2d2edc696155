//! What an IOMMU says of an endpoint, and what follows for its domains.

use crate::model::{Asked, DEVICE_ERROR, Reaction};
use crate::world::{MAP_UNMAP, MESSAGES, MMIO, PROBE, Setup, World, map, range, reserved};

#[test]
fn reserved_addresses_are_told_and_not_mapped() {
    let mut setup = Setup::default();
    setup
        .traits
        .properties
        .extend(reserved(0, 0x10_0000, 0x1f_ffff));
    let world = setup.start();
    let domain = world.entered(&world.unit(&[0x10]));
    let expected = [range(MESSAGES.0, MESSAGES.1), range(0x10_0000, 0x1f_ffff)];
    assert_eq!(domain.reserved(), expected);
    assert!(domain.change(&[map(0x1f_f000, 0x20_0fff, 0)]).is_err());
    domain.change(&[map(0x20_0000, 0x20_0fff, 0)]).unwrap();
}

#[test]
fn an_endpoint_is_asked_about_once() {
    let world = World::new();
    let unit = world.unit(&[0x10]);
    for _ in 0..3 {
        let _domain = world.iommus.isolate(&unit).unwrap();
    }
    assert_eq!(world.model.take_asked(), [Asked::Probe(0x10)]);
    // Another function may be there later.
    drop(unit);
    let _domain = world.iommus.isolate(&world.unit(&[0x18])).unwrap();
    let _domain = world.iommus.isolate(&world.unit(&[0x10])).unwrap();
    let expected = [Asked::Probe(0x18), Asked::Probe(0x10)];
    assert_eq!(world.model.take_asked(), expected);
}

#[test]
fn properties_that_cannot_be_read_leave_an_endpoint_without_a_domain() {
    let mut setup = Setup::default();
    setup.traits.properties = reserved(0, 2, 1);
    let world = setup.start();
    assert!(world.iommus.isolate(&world.unit(&[0x10])).is_none());

    let lies = [
        Reaction::Refuse(DEVICE_ERROR),
        Reaction::DoSilently,
        // Up to the status, and not with it.
        Reaction::DoAndMeasure(64),
    ];
    for lie in lies {
        let world = World::new();
        world.model.script(move |_| lie);
        assert!(world.iommus.isolate(&world.unit(&[0x10])).is_none());
        world.model.be_honest();
        assert!(world.iommus.isolate(&world.unit(&[0x10])).is_some());
    }
}

/// The flags of the mapping that lets interrupt messages through.
fn window(world: &World) -> Option<u32> {
    let _domain = world.entered(&world.unit(&[0x10]));
    let mapped = world.model.mapped(0);
    let window = mapped.iter().find(|(first, _)| *first == MESSAGES.0);
    window.map(|(first, mapping)| {
        assert_eq!(
            (*first, mapping.last, mapping.addr),
            (MESSAGES.0, MESSAGES.1, MESSAGES.0)
        );
        mapping.flags
    })
}

#[test]
fn interrupt_messages_reach_their_goal_also_where_they_are_translated() {
    assert_eq!(window(&World::new()), None);
    let mut setup = Setup::default();
    setup.features &= !PROBE;
    assert_eq!(window(&setup.start()), Some(2));
    let mut setup = Setup::default();
    setup.features |= MMIO;
    setup.traits.takes_mmio = true;
    setup.traits.properties = reserved(0, 0, 0xfff);
    let world = setup.start();
    assert_eq!(window(&world), Some(6));
    let domain = world.entered(&world.unit(&[0x10]));
    assert!(domain.reserved().contains(&range(MESSAGES.0, MESSAGES.1)));
    drop(domain);
    assert_eq!(world.model.mapped(0), []);
}

#[test]
fn an_iommu_without_any_feature_but_mappings_translates_everything() {
    let setup = Setup {
        features: MAP_UNMAP,
        ..Setup::default()
    };
    let world = setup.start();
    let domain = world.entered(&world.unit(&[0x10]));
    assert_eq!(domain.iova_ranges(), [range(0, u64::MAX)]);
}
