//! What the IOMMU lets a device of the kernel reach, and one that may not care for IOMMUs.

use std::sync::Arc;

use vdpa::device::AttachError;
use vdpa::dma::{Addressing, DmaSpace, Isolation, MapTarget, Owner, Trust};
use vdpa::iotlb::IovaRange;
use vdpa::ops::OpError;
use vdpa::platform::DomainError;
use virtio::DeviceStatus;
use virtq::DmaBuffer;

use crate::world::{Model, PAGE, RW, World, backing, no_iommu};

fn range(buffer: &DmaBuffer) -> (u64, u64, vdpa::iotlb::Permission) {
    let first = buffer.addr().0;
    (first, first + PAGE - 1, RW)
}

#[test]
fn a_device_of_the_kernel_reaches_what_was_lent_to_it_where_the_platform_has_it() {
    let world = World::new(Model::Iommu);
    let kernel = world.device.attach(Owner::Kernel, Trust::Isolated).unwrap();
    assert_eq!(kernel.addressing(), Addressing::Platform);
    assert!(world.iommu.isolates(&world.unit) && world.reachable(0).is_empty());
    let space = DmaSpace::new(&world.as_platform());
    let early = DmaBuffer::new(&space.allocator(), 24).unwrap();
    space
        .attach(Arc::clone(&kernel) as Arc<dyn MapTarget>)
        .unwrap();
    let late = DmaBuffer::new(&space.allocator(), 24).unwrap();
    let mut lent = [range(&early), range(&late)];
    lent.sort_unstable_by_key(|range| range.0);
    assert_eq!(world.reachable(0), lent);
    let (_, _, addr) = world.iommu.mapped(&world.unit)[0];
    assert_eq!(addr.0, lent[0].0);
    drop(early);
    assert_eq!(world.reachable(0), [range(&late)]);
    // Memory at an address that is not the platform's is none that the kernel lends.
    let memory = world.memory(1);
    let elsewhere = IovaRange::new(memory.platform_addr().unwrap().0 + 64 * PAGE, PAGE).unwrap();
    let mapped = kernel.map(0, elsewhere, RW, backing(&memory, 0));
    assert_eq!(mapped, Err(OpError::Invalid));
}

#[test]
fn devices_of_one_unit_share_what_the_kernel_lends_to_them() {
    let world = World::new(Model::Iommu);
    let sibling = world.sibling();
    let first = world.device.attach(Owner::Kernel, Trust::Isolated).unwrap();
    let second = sibling.attach(Owner::Kernel, Trust::Isolated).unwrap();
    let space = DmaSpace::new(&world.as_platform());
    let buffer = DmaBuffer::new(&space.allocator(), 64).unwrap();
    // The memory moves from one to the other, and for a moment both have it.
    space
        .attach(Arc::clone(&first) as Arc<dyn MapTarget>)
        .unwrap();
    space
        .attach(Arc::clone(&second) as Arc<dyn MapTarget>)
        .unwrap();
    assert_eq!(world.reachable(0), [range(&buffer)]);
    first.reset_map(0).unwrap();
    assert_eq!(world.reachable(0), [range(&buffer)], "the other needs it");
    let unmapped = world.iommu.unmapped();
    assert_eq!(unmapped, []);
    world.detach(&first);
    assert_eq!(world.reachable(0), [range(&buffer)]);
    world.detach(&second);
    assert!(world.reachable(0).is_empty() && !world.iommu.isolates(&world.unit));
}

#[test]
fn a_change_that_the_iommu_refuses_changes_nothing_for_those_who_share() {
    let world = World::new(Model::Iommu);
    let sibling = world.sibling();
    let first = world.device.attach(Owner::Kernel, Trust::Isolated).unwrap();
    let second = sibling.attach(Owner::Kernel, Trust::Isolated).unwrap();
    let memory = world.memory(1);
    let at = IovaRange::new(memory.platform_addr().unwrap().0, PAGE).unwrap();
    let map = |to: &vdpa::device::Attachment| to.map(0, at, RW, backing(&memory, 0));
    world.iommu.fail_after(0, DomainError::OutOfResources);
    assert_eq!(map(&first), Err(OpError::OutOfResources));
    assert_eq!(world.reachable(0), []);
    map(&first).unwrap();
    map(&second).unwrap();
    first.unmap(0, at).unwrap();
    world.iommu.fail_after(0, DomainError::Timeout);
    assert_eq!(second.unmap(0, at), Err(OpError::Timeout));
    assert_eq!(world.reachable(0).len(), 1);
    second.unmap(0, at).unwrap();
    assert_eq!(world.reachable(0), []);
}

#[test]
#[cfg_attr(miri, ignore = "it leaks, on purpose")]
fn memory_that_an_iommu_does_not_let_go_of_is_never_free_again() {
    for owner in [Owner::Kernel, Owner::Client] {
        let world = World::new(Model::Iommu);
        let attachment = world.device.attach(owner, Trust::Isolated).unwrap();
        let memory = world.memory(1);
        let at = IovaRange::new(memory.platform_addr().unwrap().0, PAGE).unwrap();
        attachment.map(0, at, RW, backing(&memory, 0)).unwrap();
        drop(memory);
        world.iommu.fail_after(0, DomainError::Timeout);
        world.detach(&attachment);
        assert_eq!(world.platform.heap().outstanding(), 0x1000, "{owner:?}");
    }
}

#[test]
fn a_client_has_no_device_that_may_bypass_the_iommu_unless_that_is_asked_for_by_name() {
    let world = World::without_access_platform();
    assert_eq!(world.device.isolation(), Isolation::None);
    assert_eq!(world.attach().err(), Some(AttachError::NoIsolation));
    assert_eq!(world.unit.owner(), None);
    // Whether it bypasses or not, it finds memory where the platform has it.
    let client = world.device.attach(Owner::Client, no_iommu()).unwrap();
    assert_eq!(client.addressing(), Addressing::Platform);
    let memory = world.memory(1);
    let at = IovaRange::new(memory.platform_addr().unwrap().0, PAGE).unwrap();
    client.map(0, at, RW, backing(&memory, 0)).unwrap();
    let (range, _, addr) = world.iommu.mapped(&world.unit)[0];
    assert_eq!((range, addr.0), (at, at.first()));
}

#[test]
fn a_client_cannot_negotiate_translation_away() {
    let world = World::new(Model::Iommu);
    let agree = |features: vdpa::Features| {
        world.platform.block_on(async {
            let status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
            world.device.reset().await?;
            world.device.set_status(status).await?;
            world.device.set_driver_features(features)?;
            let status = status | DeviceStatus::FEATURES_OK;
            world.device.set_status(status).await
        })
    };
    let packed = vdpa::Features::from(virtio::F::RING_PACKED);
    let client = world.attach().unwrap();
    assert_eq!(agree(packed), Err(OpError::FeaturesRefused));
    assert_eq!(agree(virtio::F::ACCESS_PLATFORM.into()), Ok(()));
    world.reset();
    world.detach(&client);
    // The kernel's memory lies where the platform has it, so it may.
    let _kernel = world.device.attach(Owner::Kernel, Trust::Isolated).unwrap();
    assert_eq!(agree(packed), Ok(()));
}
