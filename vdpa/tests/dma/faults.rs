//! Each step that can fail does, and the world is compared before and after.

use std::sync::Arc;

use vdpa::device::{AttachError, Attachment};
use vdpa::dma::{DmaSpace, MapTarget, Owner, Trust};
use vdpa::iotlb::IovaRange;
use vdpa::ops::OpError;
use virtq::DmaBuffer;

use crate::world::{Model, RW, Snapshot, World, backing};

/// Lets the steps of an action fail one after the other, until it needs no more of them. The world
/// must be the same after each failure. Returns how many there were.
fn fail_each_step(
    world: &World,
    look: impl Fn() -> Snapshot,
    mut act: impl FnMut() -> Result<(), OpError>,
) -> usize {
    let before = look();
    for step in 0.. {
        world.fail_after(step);
        let result = act();
        if world.take_fault() {
            assert_eq!(result, Ok(()), "{:?}: nothing has failed", world.model);
            return step;
        }
        assert_eq!(
            result,
            Err(OpError::Timeout),
            "{:?}, step {step}",
            world.model
        );
        assert_eq!(look(), before, "{:?}, step {step}", world.model);
    }
    unreachable!("an action has an end")
}

#[test]
fn map_and_unmap_happen_or_do_not() {
    for model in Model::TRANSLATED {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let memory = world.memory(16);
        let range = |page, pages| world.range(&memory, page, pages);
        let look = || world.snapshot(&attachment);
        for page in [0, 4, 8] {
            let steps = fail_each_step(&world, look, || {
                attachment.map(0, range(page, 3), RW, backing(&memory, page))
            });
            assert_eq!(steps, 1, "{model:?}");
        }
        // One that cuts two mappings and takes one, one that splits, one that takes a whole.
        for (page, pages) in [(1, 8), (10, 1), (0, 1)] {
            let steps = fail_each_step(&world, look, || {
                attachment.unmap(0, range(page, pages)).map(drop)
            });
            assert_eq!(steps, 1, "{model:?}");
        }
        let steps = fail_each_step(&world, look, || attachment.reset_map(0));
        assert_eq!(steps, 1, "{model:?}");
        assert_eq!(attachment.mapped_bytes(), 0);
    }
}

#[test]
fn a_device_that_cannot_be_emptied_gets_no_owner() {
    for model in Model::TRANSLATED {
        let world = World::with_traits(model, |traits| traits.spaces = 2);
        // An IOMMU only has to take the device in; the device empties its address spaces.
        let steps = if model == Model::Iommu { 1 } else { 2 };
        for step in 0..steps {
            world.fail_after(step);
            assert_eq!(
                world.attach().err(),
                Some(AttachError::Device(OpError::Timeout)),
                "{model:?}, step {step}"
            );
            assert_eq!((world.device.owner(), world.unit.owner()), (None, None));
            assert!(!world.iommu.isolates(&world.unit));
        }
        assert!(world.attach().is_ok());
    }
}

#[test]
fn a_space_reaches_a_device_with_all_its_memory_or_with_none() {
    for model in Model::TRANSLATED {
        let old = World::new(model);
        let space = DmaSpace::new(&old.as_platform());
        let dma = space.allocator();
        let first = old.attach().unwrap();
        space
            .attach(Arc::clone(&first) as Arc<dyn MapTarget>)
            .unwrap();
        let buffers: Vec<_> = (1..6)
            .map(|index| DmaBuffer::new(&dma, index * 0x1000).unwrap())
            .collect();

        let new = World::new(model);
        let second = new.attach().unwrap();
        let look = || new.snapshot(&second);
        let steps = fail_each_step(&new, look, || {
            space.attach(Arc::clone(&second) as Arc<dyn MapTarget>)
        });
        // One change for each, or all together.
        let expected = if model == Model::Incremental {
            buffers.len()
        } else {
            1
        };
        assert_eq!(steps, expected, "{model:?}");
        assert_eq!(new.reachable(0), old.reachable(0));
    }
}

#[test]
fn an_allocation_that_the_device_cannot_reach_does_not_happen() {
    for model in Model::TRANSLATED {
        let world = World::new(model);
        let space = DmaSpace::new(&world.as_platform());
        let dma = space.allocator();
        let attachment = world.attach().unwrap();
        space
            .attach(Arc::clone(&attachment) as Arc<dyn MapTarget>)
            .unwrap();
        let mut kept = Vec::new();
        let look = || world.snapshot(&attachment);
        let steps = fail_each_step(&world, look, || {
            let buffer = DmaBuffer::new(&dma, 0x2000).map_err(|_| OpError::Timeout)?;
            kept.push(buffer);
            Ok(())
        });
        assert_eq!(steps, 1, "{model:?}");
        assert_eq!(kept.len(), 1);
    }
}

#[test]
fn an_address_that_a_device_would_not_forget_leads_to_nothing_else() {
    for model in Model::TRANSLATED {
        let world = World::new(model);
        let space = DmaSpace::new(&world.as_platform());
        let dma = space.allocator();
        let attachment: Arc<Attachment> = world.attach().unwrap();
        space
            .attach(Arc::clone(&attachment) as Arc<dyn MapTarget>)
            .unwrap();
        let buffer = DmaBuffer::new(&dma, 0x1000).unwrap();
        let addr = buffer.addr();
        world.fail_after(0);
        drop(buffer);
        assert!(!world.take_fault());
        assert_eq!(world.reachable(0).len(), 1, "{model:?}");
        assert_eq!(
            world.platform.heap().outstanding(),
            0x1000,
            "the device may use it"
        );
        assert_ne!(DmaBuffer::new(&dma, 0x1000).unwrap().addr(), addr);
        space.detach();
        drop(attachment);
        assert_eq!(world.platform.heap().outstanding(), 0);
    }
}

#[test]
fn the_last_address_is_lost_until_the_device_has_let_go_and_not_longer() {
    for model in Model::ON_CHIP {
        // Room for one block.
        let window = IovaRange::new(0x10_0000, 0x1000).unwrap();
        let world = World::with_traits(model, |traits| traits.iova_range = window);
        let space = DmaSpace::new(&world.as_platform());
        let dma = space.allocator();
        let attachment = world.attach().unwrap();
        let target = || Arc::clone(&attachment) as Arc<dyn MapTarget>;
        space.attach(target()).unwrap();
        let allocate = || DmaBuffer::new(&dma, 0x1000);

        // A block that the device refuses costs no address.
        world.fail_after(0);
        assert!(allocate().is_err());
        let buffer = allocate().unwrap();
        assert!(allocate().is_err(), "the window is full");
        // One that it does not forget does.
        world.fail_after(0);
        drop(buffer);
        assert!(!world.take_fault());
        assert!(allocate().is_err(), "{model:?}");
        space.detach();
        attachment.reset_map(0).unwrap();
        space.attach(target()).unwrap();
        assert!(allocate().is_ok());
    }
}

#[test]
fn a_device_that_will_not_be_emptied_is_given_back_and_asked_again() {
    for model in Model::ON_CHIP {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let memory = world.memory(1);
        let range = world.range(&memory, 0, 1);
        attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
        world.fail_after(0);
        world.detach(&attachment);
        assert_eq!(world.reachable(0).len(), 1);
        assert_eq!(world.device.owner(), None);
        let _next = world.device.attach(Owner::Kernel, Trust::Isolated).unwrap();
        assert!(world.reachable(0).is_empty());
    }
}
