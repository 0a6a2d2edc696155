//! Domains: who is in one, which there are, and what becomes of them.

use std::sync::Arc;

use vdpa::platform::DomainError;

use crate::model::{Asked, DEVICE_ERROR, NO_MEMORY, READ, Reaction, WRITE};
use crate::world::{Setup, World, map};

#[test]
fn an_endpoint_reaches_what_its_domain_maps_and_nothing_else() {
    let world = World::new();
    let unit = world.unit(&[0x10]);
    let other = world.entered(&world.unit(&[0x18]));
    let domain = world.iommus.isolate(&unit).unwrap();
    assert_eq!(world.model.domain_of(0x10), None);
    domain.enter().unwrap();
    domain.change(&[map(0x1000, 0x2fff, 0x9000)]).unwrap();
    assert_eq!(world.model.access(0x10, 0x2008, READ), Some(0xa008));
    assert_eq!(world.model.access(0x10, 0x3000, READ), None);
    assert_eq!(world.model.access(0x18, 0x1000, READ), None);
    assert_eq!(world.fact("domains"), "2 of 4294967295");
    assert_eq!(world.fact("mapped"), "8.00 KiB");
    drop(other);
    assert_eq!(world.model.access(0x10, 0x1000, WRITE), Some(0x9000));
    drop(domain);
    assert_eq!(world.model.access(0x10, 0x1000, READ), None);
    assert_eq!(world.model.domain_of(0x10), None);
}

#[test]
fn what_is_mapped_before_it_is_entered_is_reached_afterwards() {
    let world = World::new();
    let unit = world.unit(&[0x10]);
    let domain = world.iommus.isolate(&unit).unwrap();
    domain.change(&[map(0x1000, 0x1fff, 0x9000)]).unwrap();
    assert_eq!(world.model.take_asked(), [Asked::Probe(0x10)]);
    domain.enter().unwrap();
    assert_eq!(world.model.access(0x10, 0x1fff, READ), Some(0x9fff));
    // A second time changes nothing.
    world.model.take_asked();
    domain.enter().unwrap();
    assert_eq!(world.model.take_asked(), []);
}

#[test]
fn the_numbers_of_domains_are_the_iommus_and_free_again() {
    let mut setup = Setup::default();
    setup.traits.domains = (7, 8);
    let world = setup.start();
    let first = world.entered(&world.unit(&[0x10]));
    let second = world.entered(&world.unit(&[0x18]));
    assert_eq!(world.model.domain_of(0x10), Some(7));
    assert_eq!(world.model.domain_of(0x18), Some(8));
    let third = world.iommus.isolate(&world.unit(&[0x20])).unwrap();
    assert_eq!(third.enter(), Err(DomainError::OutOfResources));
    drop(first);
    third.enter().unwrap();
    assert_eq!(world.model.domain_of(0x20), Some(7));
    drop((second, third));
    assert_eq!(world.fact("domains"), "0 of 2");
}

#[test]
fn the_number_of_a_domain_that_may_have_somebody_in_it_is_not_used_again() {
    let world = World::new();
    let unit = world.unit(&[0x10]);
    let domain = world.entered(&unit);
    world.model.script(|asked| match asked {
        Asked::Detach(..) => Reaction::Refuse(DEVICE_ERROR),
        _ => Reaction::Honest,
    });
    drop(domain);
    world.model.be_honest();
    let _other = world.entered(&world.unit(&[0x18]));
    assert_eq!(world.model.domain_of(0x18), Some(1));
    // The IOMMU can still be used: nothing is mapped in that domain.
    assert_eq!(world.fact("state"), "on");
}

#[test]
fn a_domain_that_lets_go_of_nothing_ends_the_iommu() {
    let world = World::new();
    let domain = world.entered(&world.unit(&[0x10]));
    domain.change(&[map(0x1000, 0x1fff, 0x9000)]).unwrap();
    world.model.script(|asked| match asked {
        Asked::Detach(..) | Asked::Unmap(..) => Reaction::Refuse(DEVICE_ERROR),
        _ => Reaction::Honest,
    });
    drop(domain);
    assert_eq!(world.fact("state"), "broken");
    world.platform.run_until_stalled();
    // It has been reset.
    assert_eq!(world.model.access(0x10, 0x1000, READ), None);
}

#[test]
fn what_a_domain_still_maps_is_taken_away_with_it() {
    let world = World::new();
    let domain = world.entered(&world.unit(&[0x10]));
    domain.change(&[map(0x1000, 0x1fff, 0x9000)]).unwrap();
    world.model.take_asked();
    drop(domain);
    let expected = [Asked::Unmap(0, 0x1000, 0x1fff), Asked::Detach(0, 0x10)];
    assert_eq!(world.model.take_asked(), expected);
}

#[test]
fn all_requesters_of_a_unit_are_in_its_domain_as_far_as_they_exist() {
    let world = World::new();
    let unit = world.unit(&[0x10, 0x77, 0x18]);
    let domain = world.entered(&unit);
    domain.change(&[map(0x1000, 0x1fff, 0x9000)]).unwrap();
    for endpoint in [0x10, 0x18] {
        assert_eq!(world.model.access(endpoint, 0x1000, READ), Some(0x9000));
    }
    drop(domain);
    for endpoint in [0x10, 0x18] {
        assert_eq!(world.model.domain_of(endpoint), None);
    }
    let nobody = world.iommus.isolate(&world.unit(&[0x77])).unwrap();
    assert_eq!(nobody.enter(), Err(DomainError::Refused));
}

#[test]
fn a_unit_enters_with_all_its_requesters_or_not_at_all() {
    for refused in [0x10, 0x18] {
        let world = World::new();
        let unit = world.unit(&[0x10, 0x18]);
        let domain = world.iommus.isolate(&unit).unwrap();
        domain.change(&[map(0x1000, 0x1fff, 0x9000)]).unwrap();
        world.model.script(move |asked| match asked {
            Asked::Attach(_, endpoint) if *endpoint == refused => Reaction::Refuse(NO_MEMORY),
            _ => Reaction::Honest,
        });
        assert_eq!(domain.enter(), Err(DomainError::OutOfResources));
        assert_eq!(world.model.domain_of(0x10), None);
        assert_eq!(world.model.domain_of(0x18), None);
        // It is as before, and can be entered later.
        world.model.be_honest();
        domain.enter().unwrap();
        assert_eq!(world.model.domain_of(0x10), Some(0), "the number is free");
        assert_eq!(world.model.access(refused, 0x1000, READ), Some(0x9000));
    }
}

#[test]
fn a_domain_that_cannot_be_filled_is_not_entered() {
    let world = World::new();
    let domain = world.iommus.isolate(&world.unit(&[0x10])).unwrap();
    let pages = [
        map(0x1000, 0x1fff, 0),
        map(0x3000, 0x3fff, 0),
        map(0x5000, 0x5fff, 0),
    ];
    domain.change(&pages).unwrap();
    world.model.script(|asked| match asked {
        Asked::Map(_, 0x5000, ..) => Reaction::Refuse(NO_MEMORY),
        _ => Reaction::Honest,
    });
    assert_eq!(domain.enter(), Err(DomainError::OutOfResources));
    assert_eq!(world.model.domain_of(0x10), None);
    world.model.be_honest();
    domain.enter().unwrap();
    assert_eq!(world.model.mapped(0).len(), 3);
}

#[test]
fn a_unit_goes_from_one_domain_to_the_next() {
    let world = World::new();
    let unit = world.unit(&[0x10]);
    let first = world.entered(&unit);
    first.change(&[map(0x1000, 0x1fff, 0x9000)]).unwrap();
    drop(first);
    let second = world.entered(&unit);
    assert_eq!(world.model.access(0x10, 0x1000, READ), None);
    second.change(&[map(0x1000, 0x1fff, 0x5000)]).unwrap();
    assert_eq!(world.model.access(0x10, 0x1000, READ), Some(0x5000));
    drop(Arc::clone(&second));
}
