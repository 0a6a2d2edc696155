//! Memory of kernel drivers, and where their devices find it.

use std::collections::BTreeSet;
use std::sync::Arc;

use vdpa::device::Attachment;
use vdpa::dma::{DmaSpace, MapTarget, Owner, Trust};
use vdpa::iotlb::IovaRange;
use vdpa::ops::OpError;
use virtq::{DmaAllocator, DmaBuffer, DmaError};

use crate::world::{Model, PAGE, World};

struct Driver {
    space: Arc<DmaSpace>,
    dma: Arc<dyn DmaAllocator>,
    attachment: Arc<Attachment>,
}

/// A driver of the kernel on the device.
fn driver(world: &World) -> Driver {
    let space = DmaSpace::new(&world.as_platform());
    let attachment = kernel(world);
    space.attach(target(&attachment)).unwrap();
    Driver {
        dma: space.allocator(),
        space,
        attachment,
    }
}

fn kernel(world: &World) -> Arc<Attachment> {
    world.device.attach(Owner::Kernel, Trust::Isolated).unwrap()
}

fn target(attachment: &Arc<Attachment>) -> Arc<dyn MapTarget> {
    Arc::clone(attachment) as Arc<dyn MapTarget>
}

#[test]
fn on_the_platform_an_address_is_the_platforms() {
    for model in [Model::Nobody, Model::Iommu] {
        let world = World::new(model);
        let driver = driver(&world);
        let mut buffer = DmaBuffer::new(&driver.dma, 100).unwrap();
        buffer.copy_from_slice(&[0x5a; 100]);
        let mut seen = [0; 100];
        world
            .platform
            .heap()
            .read(buffer.addr(), &mut seen)
            .unwrap();
        assert_eq!(seen, [0x5a; 100]);
    }
}

#[test]
fn on_a_device_that_translates_an_address_is_never_the_platforms() {
    for model in Model::ON_CHIP {
        let world = World::new(model);
        let driver = driver(&world);
        for len in [1, 16, 0x1000, 0x1234] {
            let buffer = DmaBuffer::new(&driver.dma, len).unwrap();
            let mut byte = [0];
            let at = world.platform.heap().read(buffer.addr(), &mut byte);
            assert!(at.is_err(), "the platform has nothing there");
            let last = buffer.addr().0 + buffer.len() as u64 - 1;
            assert_eq!(
                world.reachable(0).last().map(|mapped| (mapped.0, mapped.1)),
                Some((buffer.addr().0, last))
            );
        }
        assert!(world.reachable(0).is_empty(), "freed memory is unmapped");
    }
}

#[test]
fn blocks_have_free_pages_between_them_and_their_alignment() {
    let world = World::new(Model::Incremental);
    let driver = driver(&world);
    let buffers: Vec<_> = [(10, 16), (0x3000, 0x1000), (0x1001, 0x10_0000), (1, 1)]
        .iter()
        .map(|(len, align)| {
            let buffer = DmaBuffer::with_alignment(&driver.dma, *len, *align).unwrap();
            assert!(buffer.addr().0.is_multiple_of(*align as u64));
            buffer
        })
        .collect();
    let mapped = world.reachable(0);
    assert_eq!(mapped.len(), buffers.len());
    for pair in mapped.windows(2) {
        assert!(pair[1].0 - pair[0].1 > PAGE);
    }
}

#[test]
fn addresses_stay_inside_what_the_device_has_and_are_used_again() {
    for model in Model::ON_CHIP {
        let window = IovaRange::new(0x7000_0000, 8 * PAGE).unwrap();
        let world = World::with_traits(model, |traits| traits.iova_range = window);
        let driver = driver(&world);
        let mut addresses = BTreeSet::new();
        for _ in 0..3 {
            let mut buffers = Vec::new();
            let error = loop {
                match DmaBuffer::new(&driver.dma, 0x1000) {
                    Ok(buffer) => buffers.push(buffer),
                    Err(error) => break error,
                }
            };
            assert_eq!(error, DmaError::OutOfMemory);
            assert_eq!(buffers.len(), 4);
            addresses.extend(buffers.iter().map(DmaBuffer::addr));
        }
        assert_eq!(addresses.len(), 4);
        assert_eq!(world.platform.heap().outstanding(), 0);
    }
}

#[test]
fn memory_lies_at_the_same_addresses_on_the_next_device() {
    for (from, to) in [
        (Model::Incremental, Model::Whole),
        (Model::Whole, Model::Incremental),
        (Model::Nobody, Model::Whole),
        (Model::Nobody, Model::Incremental),
    ] {
        let old = World::new(from);
        let driver = driver(&old);
        let buffers: Vec<_> = (1..10)
            .map(|pages| DmaBuffer::new(&driver.dma, pages * 0x1000).unwrap())
            .collect();
        let expected: BTreeSet<_> = buffers.iter().map(|buffer| buffer.addr().0).collect();

        let new = World::new(to);
        let attachment = kernel(&new);
        driver.space.attach(target(&attachment)).unwrap();
        let firsts = |world: &World| -> BTreeSet<u64> {
            world.reachable(0).iter().map(|mapped| mapped.0).collect()
        };
        assert_eq!(firsts(&new), expected, "{from:?} to {to:?}");
        // The old device keeps what it has, and learns of nothing more.
        old.parent.take_log();
        drop(buffers);
        let _more = DmaBuffer::new(&driver.dma, 0x1000).unwrap();
        assert!(old.parent.take_log().is_empty());
        assert_eq!(new.reachable(0).len(), 1);
        if from != Model::Nobody {
            assert_eq!(firsts(&old), expected);
        }
        old.detach(&driver.attachment);
        assert!(old.reachable(0).is_empty());
    }
}

#[test]
fn memory_that_has_begun_at_the_platforms_addresses_can_go_back() {
    let hardware = World::new(Model::Nobody);
    let simulator = World::new(Model::Whole);
    let driver = driver(&hardware);
    let old = DmaBuffer::new(&driver.dma, 0x1000).unwrap();
    let away = kernel(&simulator);
    driver.space.attach(target(&away)).unwrap();
    let new = DmaBuffer::new(&driver.dma, 0x1000).unwrap();
    hardware.detach(&driver.attachment);
    let back = kernel(&hardware);
    driver.space.attach(target(&back)).unwrap();
    assert_eq!(back.mapped_bytes(), 0x2000);
    drop((old, new));
    assert_eq!(back.mapped_bytes(), 0);
}

#[test]
fn memory_at_other_addresses_cannot_go_where_nobody_translates() {
    let simulator = World::new(Model::Incremental);
    let hardware = World::new(Model::Nobody);
    let driver = driver(&simulator);
    let buffer = DmaBuffer::new(&driver.dma, 0x1000).unwrap();
    let attachment = kernel(&hardware);
    let before = simulator.snapshot(&driver.attachment);
    assert_eq!(
        driver.space.attach(target(&attachment)),
        Err(OpError::Invalid)
    );
    assert_eq!(attachment.mapped_bytes(), 0);
    assert_eq!(simulator.snapshot(&driver.attachment), before);
    drop(buffer);
    assert!(simulator.reachable(0).is_empty(), "still the same device");
    // With nothing allocated it begins anew.
    driver.space.attach(target(&attachment)).unwrap();
    let buffer = DmaBuffer::new(&driver.dma, 0x1000).unwrap();
    assert_eq!(attachment.mapped_bytes(), 0x1000);
    drop(buffer);
}

#[test]
fn what_is_freed_without_a_device_is_forgotten() {
    for model in Model::ON_CHIP {
        let world = World::new(model);
        let driver = driver(&world);
        let kept = DmaBuffer::new(&driver.dma, 0x1000).unwrap();
        let freed = DmaBuffer::new(&driver.dma, 0x1000).unwrap();
        driver.space.detach();
        assert!(world.reachable(0).is_empty());
        world.parent.take_log();
        drop(freed);
        assert!(world.parent.take_log().is_empty());
        assert_eq!(world.platform.heap().outstanding(), 0x1000);
        driver.space.attach(target(&driver.attachment)).unwrap();
        assert_eq!(world.reachable(0).len(), 1);
        assert_eq!(world.reachable(0)[0].0, kept.addr().0);
    }
}

#[test]
fn a_device_that_belongs_to_somebody_else_gets_no_memory_of_the_kernel() {
    for model in Model::ALL {
        let world = World::new(model);
        let driver = driver(&world);
        world.detach(&driver.attachment);
        let client = world.attach().unwrap();
        assert_eq!(
            DmaBuffer::new(&driver.dma, 0x1000).err(),
            Some(DmaError::OutOfMemory)
        );
        assert_eq!(world.unit.foreign_maps(), 1);
        assert_eq!(client.mapped_bytes(), 0);
        assert_eq!(world.platform.heap().outstanding(), 0);
    }
}
