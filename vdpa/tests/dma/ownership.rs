//! Whose a device is, and how it changes hands.

use vdpa::device::{AttachError, Removal};
use vdpa::dma::{Addressing, Isolation, Owner, Trust};
use vdpa::ops::OpError;

use crate::world::{Model, PAGE, RW, World, backing, no_iommu};

#[test]
fn a_client_without_isolation_is_refused_unless_that_is_asked_for_by_name() {
    let world = World::new(Model::Nobody);
    assert_eq!(
        world.device.attach(Owner::Client, Trust::Isolated).err(),
        Some(AttachError::NoIsolation)
    );
    assert_eq!((world.unit.owner(), world.device.owner()), (None, None));
    let attachment = world.device.attach(Owner::Client, no_iommu()).unwrap();
    assert_eq!(attachment.addressing(), Addressing::Platform);
    assert_eq!(world.unit.owner(), Some(Owner::Client));
}

#[test]
fn who_cannot_have_a_device_is_told_who_has_it() {
    let kernels = AttachError::Taken(Owner::Kernel).to_string();
    assert!(kernels.contains("cannot keep apart") && kernels.ends_with("belongs to the kernel"));
    let clients = AttachError::Taken(Owner::Client).to_string();
    assert!(clients.ends_with("belongs to a client"));
}

#[test]
fn a_device_has_one_owner_at_a_time() {
    for model in Model::ALL {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        for owner in [Owner::Kernel, Owner::Client] {
            assert_eq!(
                world.device.attach(owner, no_iommu()).err(),
                Some(AttachError::Taken(Owner::Client)),
                "{model:?}"
            );
        }
        world.detach(&attachment);
        assert_eq!((world.unit.owner(), world.device.owner()), (None, None));
        let kernel = world.device.attach(Owner::Kernel, Trust::Isolated).unwrap();
        assert_eq!(world.device.owner(), Some(Owner::Kernel));
        drop(kernel);
        assert_eq!(world.device.owner(), None);
    }
}

#[test]
fn a_device_changes_hands_only_after_a_reset() {
    for model in Model::ALL {
        let world = World::new(model);
        world.start();
        assert_eq!(world.attach().err(), Some(AttachError::WrongState));
        world.reset();
        let attachment = world.attach().unwrap();
        world.start();
        assert_eq!(
            world.platform.block_on(attachment.detach()),
            Err(OpError::WrongState)
        );
        assert_eq!(world.device.owner(), Some(Owner::Client));
        world.reset();
        world.detach(&attachment);
        assert_eq!(world.device.owner(), None);
    }
}

#[test]
fn a_map_by_who_was_the_owner_is_refused_and_counted() {
    for model in Model::ALL {
        let world = World::new(model);
        let kernel = world.device.attach(Owner::Kernel, Trust::Isolated).unwrap();
        world.detach(&kernel);
        let client = world.attach().unwrap();
        let memory = world.memory(1);
        let before = world.snapshot(&client);
        let range = world.range(&memory, 0, 1);
        for count in 1..=2 {
            assert_eq!(
                kernel.map(0, range, RW, backing(&memory, 0)),
                Err(OpError::NotOwner)
            );
            assert_eq!(world.unit.foreign_maps(), count);
        }
        assert_eq!(kernel.unmap(0, range), Err(OpError::NotOwner));
        assert_eq!(kernel.begin_batch(0), Err(OpError::NotOwner));
        assert_eq!(kernel.reset_map(0), Err(OpError::NotOwner));
        let settled = world.platform.block_on(kernel.settle(0));
        assert_eq!(settled, Err(OpError::NotOwner));
        // Giving back twice takes nothing away from the next one.
        world.detach(&kernel);
        drop(kernel);
        assert_eq!(world.snapshot(&client), before, "{model:?}");
        assert_eq!(world.unit.foreign_maps(), 2);
    }
}

#[test]
fn devices_of_one_unit_have_one_owner_unless_they_translate_themselves() {
    for model in Model::ALL {
        let world = World::new(model);
        let sibling = world.sibling();
        let kernel = world.device.attach(Owner::Kernel, Trust::Isolated).unwrap();
        let client = sibling.attach(Owner::Client, no_iommu());
        if world.device.isolation() == Isolation::OnChip {
            assert!(client.is_ok());
            assert_eq!(world.unit.owner(), None, "nobody needs the unit");
            continue;
        }
        assert_eq!(client.err(), Some(AttachError::Taken(Owner::Kernel)));
        assert_eq!(sibling.owner(), None);
        // The kernel can have both, and has the unit until it has given back both.
        let second = sibling.attach(Owner::Kernel, Trust::Isolated).unwrap();
        world.detach(&kernel);
        assert_eq!(world.unit.owner(), Some(Owner::Kernel));
        world.detach(&second);
        // Two clients are two owners.
        let client = world.attach().unwrap();
        assert_eq!(
            sibling.attach(Owner::Client, no_iommu()).err(),
            Some(AttachError::Taken(Owner::Client))
        );
        assert_eq!(
            sibling.attach(Owner::Kernel, Trust::Isolated).err(),
            Some(AttachError::Taken(Owner::Client))
        );
        world.detach(&client);
        assert!(sibling.attach(Owner::Kernel, Trust::Isolated).is_ok());
    }
}

#[test]
fn the_next_owner_finds_nothing_mapped() {
    for model in Model::ALL {
        let world = World::new(model);
        let first = world.attach().unwrap();
        let memory = world.memory(2);
        let range = world.range(&memory, 0, 2);
        first.map(0, range, RW, backing(&memory, 0)).unwrap();
        world.start();
        world.reset();
        world.detach(&first);
        assert!(world.reachable(0).is_empty());
        assert!(!world.iommu.isolates(&world.unit));
        let next = world.attach().unwrap();
        assert_eq!(next.mapped_bytes(), 0);
        next.map(0, range, RW, backing(&memory, 0)).unwrap();
    }
}

#[test]
fn a_client_behind_an_iommu_reaches_only_what_it_has_mapped() {
    let world = World::new(Model::Iommu);
    let client = world.attach().unwrap();
    assert!(world.iommu.isolates(&world.unit));
    assert!(world.iommu.mapped(&world.unit).is_empty());
    drop(client);
}

#[test]
fn a_removed_device_can_be_given_back_and_not_attached_to() {
    for model in Model::ALL {
        for removal in [Removal::Orderly, crate::world::surprise()] {
            let world = World::new(model);
            let attachment = world.attach().unwrap();
            let memory = world.memory(1);
            let range = world.range(&memory, 0, 1);
            attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
            world.start();
            let removed = world.bus.unregister(&world.device, removal);
            world.platform.block_on(removed);
            assert_eq!(
                attachment.map(0, range, RW, backing(&memory, 0)),
                Err(OpError::Gone)
            );
            assert_eq!(attachment.unmap(0, range), Ok(PAGE));
            world.detach(&attachment);
            assert_eq!(world.attach().err(), Some(AttachError::Gone));
            assert_eq!(world.unit.owner(), None);
        }
    }
}
