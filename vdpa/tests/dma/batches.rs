//! Several changes that a device learns of together.

use vdpa::ops::OpError;

use crate::world::{Model, PAGE, RW, World, backing};

#[test]
fn a_device_that_takes_whole_spaces_is_told_once() {
    let world = World::new(Model::Whole);
    let attachment = world.attach().unwrap();
    let memory = world.memory(8);
    world.parent.take_log();
    attachment.begin_batch(0).unwrap();
    for page in 0..8 {
        let range = world.range(&memory, page, 1);
        attachment
            .map(0, range, RW, backing(&memory, page))
            .unwrap();
    }
    attachment.unmap(0, world.range(&memory, 7, 1)).unwrap();
    assert!(world.parent.take_log().is_empty());
    assert!(world.reachable(0).is_empty());
    attachment.end_batch(0).unwrap();
    assert_eq!(world.parent.take_log(), ["set_map(0, 7 mappings)"]);
    assert_eq!(world.reachable(0).len(), 7);
}

#[test]
fn a_device_that_is_told_of_each_change_is_told_at_once() {
    let world = World::new(Model::Incremental);
    let attachment = world.attach().unwrap();
    let memory = world.memory(1);
    attachment.begin_batch(0).unwrap();
    let range = world.range(&memory, 0, 1);
    attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
    assert_eq!(world.reachable(0).len(), 1);
    attachment.end_batch(0).unwrap();
    assert_eq!(world.reachable(0).len(), 1);
}

#[test]
fn a_refused_batch_has_not_happened() {
    for model in [Model::Whole, Model::Iommu] {
        refuse_a_batch(model);
    }
}

fn refuse_a_batch(model: Model) {
    let world = World::new(model);
    let attachment = world.attach().unwrap();
    let (old, new) = (world.memory(4), world.memory(4));
    let range = |page, pages| world.range(&old, page, pages);
    attachment
        .map(0, range(0, 4), RW, backing(&old, 0))
        .unwrap();
    let before = world.snapshot(&attachment);

    attachment.begin_batch(0).unwrap();
    attachment.unmap(0, range(1, 2)).unwrap();
    attachment
        .map(0, range(1, 1), RW, backing(&new, 0))
        .unwrap();
    attachment
        .map(0, range(10, 4), RW, backing(&new, 0))
        .unwrap();
    assert_eq!(attachment.mapped_bytes(), 7 * PAGE);
    world.fail_after(0);
    assert_eq!(attachment.end_batch(0), Err(OpError::Timeout));
    assert_eq!(world.snapshot(&attachment), before);

    // And the next one is a batch like any other.
    attachment.begin_batch(0).unwrap();
    attachment.unmap(0, range(0, 4)).unwrap();
    attachment.end_batch(0).unwrap();
    assert!(world.reachable(0).is_empty());
}

#[test]
fn memory_lives_until_the_device_has_been_told_that_it_is_gone() {
    let world = World::new(Model::Whole);
    let attachment = world.attach().unwrap();
    let memory = world.memory(1);
    let range = world.range(&memory, 0, 1);
    attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
    drop(memory);
    attachment.begin_batch(0).unwrap();
    attachment.unmap(0, range).unwrap();
    assert_eq!(world.platform.heap().outstanding(), 0x1000);
    attachment.end_batch(0).unwrap();
    assert_eq!(world.platform.heap().outstanding(), 0);
}

#[test]
fn batches_do_not_nest_and_end_once() {
    for model in Model::ALL {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        assert_eq!(attachment.end_batch(0), Err(OpError::WrongState));
        attachment.begin_batch(0).unwrap();
        assert_eq!(attachment.begin_batch(0), Err(OpError::WrongState));
        attachment.end_batch(0).unwrap();
        assert_eq!(attachment.end_batch(0), Err(OpError::WrongState));
        assert_eq!(attachment.begin_batch(1), Err(OpError::OutOfRange));
    }
}

#[test]
fn taking_everything_away_ends_a_batch() {
    for model in Model::ALL {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let memory = world.memory(1);
        let range = world.range(&memory, 0, 1);
        attachment.begin_batch(0).unwrap();
        attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
        attachment.reset_map(0).unwrap();
        assert_eq!(attachment.mapped_bytes(), 0);
        assert_eq!(attachment.end_batch(0), Err(OpError::WrongState));
        assert!(world.reachable(0).is_empty());
    }
}
