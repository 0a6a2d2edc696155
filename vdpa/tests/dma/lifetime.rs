//! How long memory lives that a device may use, and that it does not live longer.

use std::sync::Arc;

use vdpa::device::{AttachError, Removal};
use vdpa::dma::{DmaSpace, MapTarget, Owner};
use vdpa::ops::{Abilities, OpError};
use vdpa::testing::Resets;
use virtq::DmaBuffer;

use crate::world::{Model, PAGE, RW, World, backing, table};

#[test]
fn mapped_memory_lives_until_it_is_unmapped_and_no_longer() {
    for model in Model::ALL {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let memory = world.memory(4);
        let range = world.range(&memory, 0, 4);
        let half = world.range(&memory, 0, 2);
        attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
        drop(memory);
        assert_eq!(world.platform.heap().outstanding(), 0x4000);
        attachment.unmap(0, half).unwrap();
        assert_eq!(world.platform.heap().outstanding(), 0x4000);
        attachment.unmap(0, range).unwrap();
        assert_eq!(world.platform.heap().outstanding(), 0, "{model:?}");
    }
}

#[test]
fn what_a_running_device_can_reach_outlives_the_attachment_until_the_reset() {
    for model in Model::ALL {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let memory = world.memory(1);
        let range = world.range(&memory, 0, 1);
        attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
        drop(memory);
        world.start();
        drop(attachment);
        assert_eq!(world.platform.heap().outstanding(), 0x1000, "{model:?}");
        assert_eq!(
            world.attach().err(),
            Some(AttachError::Taken(Owner::Client))
        );
        world.reset();
        assert_eq!(world.platform.heap().outstanding(), 0, "{model:?}");
        assert_eq!((world.device.owner(), world.unit.owner()), (None, None));
        assert!(world.reachable(0).is_empty());
        assert!(!world.iommu.isolates(&world.unit));
    }
}

#[test]
#[cfg_attr(miri, ignore = "it leaks, on purpose")]
fn memory_of_a_device_that_does_not_reset_is_never_free_again() {
    for model in Model::ALL {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let memory = world.memory(1);
        let range = world.range(&memory, 0, 1);
        attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
        drop(memory);
        world.start();
        drop(attachment);
        world.parent.set_resets(Resets::Never);
        let removed = world.bus.unregister(&world.device, Removal::Orderly);
        world.platform.block_on(removed);
        let World {
            platform,
            iommu,
            unit,
            parent,
            device,
            ..
        } = world;
        drop((parent, device));
        assert_eq!(platform.heap().outstanding(), 0x1000, "{model:?}");
        if model == Model::Iommu {
            assert!(iommu.isolates(&unit), "it stays where it can do no harm");
        }
        if matches!(model, Model::Iommu | Model::Nobody) {
            assert_eq!(unit.owner(), Some(Owner::Client));
        }
    }
}

#[test]
fn memory_of_hardware_that_has_disappeared_is_free() {
    for model in Model::ALL {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let memory = world.memory(1);
        let range = world.range(&memory, 0, 1);
        attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
        drop(memory);
        world.start();
        drop(attachment);
        let removed = world
            .bus
            .unregister(&world.device, crate::world::surprise());
        world.platform.block_on(removed);
        assert_eq!(world.unit.owner(), None);
        let World {
            platform,
            parent,
            device,
            ..
        } = world;
        drop((parent, device));
        assert_eq!(platform.heap().outstanding(), 0, "{model:?}");
    }
}

#[test]
fn a_device_that_says_that_it_is_gone_has_let_go_of_everything() {
    for model in Model::ON_CHIP {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let memory = world.memory(1);
        let range = world.range(&memory, 0, 1);
        attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
        world.parent.fail_after(0, OpError::Gone);
        assert_eq!(attachment.unmap(0, range), Ok(PAGE), "{model:?}");
        assert!(!world.parent.take_fault());
        assert_eq!(attachment.mapped_bytes(), 0);
    }
}

#[test]
fn what_is_mapped_survives_a_reset_where_the_device_keeps_it() {
    for model in Model::ALL {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let memory = world.memory(1);
        let range = world.range(&memory, 0, 1);
        attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
        let before = world.snapshot(&attachment);
        world.start();
        world.reset();
        assert_eq!(world.snapshot(&attachment), before, "{model:?}");
    }
}

#[test]
fn what_a_device_forgets_in_a_reset_is_no_longer_mapped() {
    for model in Model::ON_CHIP {
        let world = World::with_traits(model, |traits| {
            traits.abilities.remove(Abilities::PERSISTENT_MAPS);
        });
        let attachment = world.attach().unwrap();
        let space = DmaSpace::new(&world.as_platform());
        let target = || Arc::clone(&attachment) as Arc<dyn MapTarget>;
        space.attach(target()).unwrap();
        let buffer = DmaBuffer::new(&space.allocator(), 0x1000).unwrap();
        world.start();
        world.reset();
        assert!(table(&attachment, 0).is_empty() && world.reachable(0).is_empty());
        assert_eq!(attachment.mapped_bytes(), 0);
        space.attach(target()).unwrap();
        assert_eq!(world.reachable(0)[0].0, buffer.addr().0);
    }
}

#[test]
fn space_buffer_and_attachment_can_go_in_any_order() {
    for model in Model::ALL {
        for order in 0..6 {
            let world = World::new(model);
            let attachment = world.attach().unwrap();
            let space = DmaSpace::new(&world.as_platform());
            space
                .attach(Arc::clone(&attachment) as Arc<dyn MapTarget>)
                .unwrap();
            let buffer = DmaBuffer::new(&space.allocator(), 0x1000).unwrap();
            match order {
                0 => drop((space, buffer, attachment)),
                1 => drop((space, attachment, buffer)),
                2 => drop((buffer, space, attachment)),
                3 => drop((buffer, attachment, space)),
                4 => drop((attachment, space, buffer)),
                _ => drop((attachment, buffer, space)),
            }
            assert_eq!(world.platform.heap().outstanding(), 0, "{model:?}, {order}");
            assert_eq!(world.device.owner(), None, "{model:?}, {order}");
        }
    }
}
