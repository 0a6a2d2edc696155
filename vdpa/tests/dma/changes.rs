//! Mapping and unmapping, the same for each way in which a device can be isolated.

use std::sync::Arc;

use vdpa::dma::{Addressing, Isolation};
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{Backing, OpError};
use virtq::{Arena, DeviceMemory, DmaAddr, DmaAllocator, SharedMemory};

use crate::world::{Model, PAGE, RW, World, backing, table};

#[test]
fn each_model_says_who_translates() {
    for (model, isolation, addressing) in [
        (
            Model::Incremental,
            Isolation::OnChip,
            Addressing::Translated,
        ),
        (Model::Whole, Isolation::OnChip, Addressing::Translated),
        (Model::Iommu, Isolation::Iommu, Addressing::Translated),
        (Model::Nobody, Isolation::None, Addressing::Platform),
    ] {
        let world = World::new(model);
        assert_eq!(world.device.isolation(), isolation);
        assert!(!world.iommu.isolates(&world.unit), "asking changes nothing");
        let attachment = world.attach().unwrap();
        assert_eq!(attachment.addressing(), addressing);
        assert_eq!(
            world.iommu.isolates(&world.unit),
            isolation == Isolation::Iommu
        );
    }
}

#[test]
fn what_is_mapped_is_reachable_until_it_is_unmapped() {
    for model in Model::ALL {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let memory = world.memory(8);
        let range = world.range(&memory, 2, 4);
        attachment
            .map(0, range, Permission::READ, backing(&memory, 2))
            .unwrap();
        let expected = [(range.first(), range.last(), Permission::READ)];
        assert_eq!(table(&attachment, 0), expected);
        assert_eq!(attachment.mapped_bytes(), 4 * PAGE);
        if model != Model::Nobody {
            assert_eq!(world.reachable(0), expected, "{model:?}");
        }

        // Out of the middle.
        let hole = world.range(&memory, 3, 1);
        assert_eq!(attachment.unmap(0, hole), Ok(PAGE), "{model:?}");
        let expected = [
            (range.first(), hole.first() - 1, Permission::READ),
            (hole.last() + 1, range.last(), Permission::READ),
        ];
        assert_eq!(table(&attachment, 0), expected);
        assert_eq!(attachment.mapped_bytes(), 3 * PAGE);
        if model != Model::Nobody {
            assert_eq!(world.reachable(0), expected, "{model:?}");
        }

        assert_eq!(attachment.unmap(0, range), Ok(3 * PAGE));
        assert_eq!(attachment.unmap(0, range), Ok(0));
        assert_eq!((attachment.mapped_bytes(), world.reachable(0)), (0, vec![]));
    }
}

#[test]
fn the_iommu_leads_to_where_the_memory_lies() {
    let world = World::new(Model::Iommu);
    let attachment = world.attach().unwrap();
    let memory = world.memory(4);
    let range = world.range(&memory, 3, 1);
    attachment.map(0, range, RW, backing(&memory, 3)).unwrap();
    let mapped = world.iommu.mapped(&world.unit);
    assert_eq!(mapped[0].2.0, memory.platform_addr().unwrap().0 + 3 * PAGE);
}

#[test]
fn what_cannot_be_mapped_changes_nothing() {
    for model in Model::ALL {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let memory = world.memory(4);
        let range = |page, pages| world.range(&memory, page, pages);
        attachment
            .map(0, range(1, 1), RW, backing(&memory, 1))
            .unwrap();
        world.parent.take_log();
        let before = world.snapshot(&attachment);
        let map = |space, range, permission, page| {
            attachment.map(space, range, permission, backing(&memory, page))
        };
        let wraps = Backing {
            memory: DeviceMemory::open(&memory).unwrap(),
            offset: u64::MAX,
        };
        for (what, result, error) in [
            ("an overlap", map(0, range(0, 3), RW, 0), OpError::Overlap),
            (
                "more than there is",
                map(0, range(3, 2), RW, 3),
                OpError::OutOfRange,
            ),
            (
                "an offset beyond everything",
                attachment.map(0, range(2, 1), RW, wraps),
                OpError::OutOfRange,
            ),
            (
                "all addresses",
                map(0, IovaRange::ALL, RW, 0),
                OpError::OutOfRange,
            ),
            (
                "nothing permitted",
                map(0, range(2, 1), Permission::empty(), 2),
                OpError::Invalid,
            ),
            (
                "no such address space",
                map(1, range(2, 1), RW, 2),
                OpError::OutOfRange,
            ),
        ] {
            assert_eq!(result, Err(error), "{model:?}: {what}");
        }
        assert_eq!(world.snapshot(&attachment), before, "{model:?}");
        assert_eq!(world.parent.take_log(), [""; 0], "the device is not asked");
    }
}

#[test]
fn without_translation_memory_is_mapped_where_it_lies_and_nowhere_else() {
    let world = World::new(Model::Nobody);
    let attachment = world.attach().unwrap();
    let memory = world.memory(2);
    let elsewhere = IovaRange::new(memory.platform_addr().unwrap().0 + PAGE, PAGE).unwrap();
    assert_eq!(
        attachment.map(0, elsewhere, RW, backing(&memory, 0)),
        Err(OpError::Invalid)
    );
    attachment
        .map(0, elsewhere, RW, backing(&memory, 1))
        .unwrap();
    assert_eq!(world.parent.take_log(), [""; 0], "nobody is told");
}

#[test]
fn memory_at_an_address_of_anybodys_choosing_never_reaches_hardware() {
    for model in Model::ALL {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let arena = Arena::new(world.memory(4), DmaAddr(0xfee0_0000)).unwrap();
        let arena: Arc<dyn DmaAllocator> = arena;
        let forged = SharedMemory::new(&arena, 0x1000).unwrap();
        let range = IovaRange::new(0xfee0_0000, PAGE).unwrap();
        let result = attachment.map(0, range, RW, backing(&forged, 0));
        if world.device.isolation() == Isolation::OnChip {
            assert_eq!(result, Ok(()), "a program that only copies");
        } else {
            assert_eq!(result, Err(OpError::Invalid), "{model:?}");
            assert!(world.reachable(0).is_empty());
        }
    }
}

#[test]
fn a_device_is_never_given_addresses_that_it_does_not_have() {
    for model in Model::ON_CHIP {
        let window = IovaRange::new(0x10_0000, 0x10_0000).unwrap();
        let world = World::with_traits(model, |traits| traits.iova_range = window);
        let attachment = world.attach().unwrap();
        let memory = world.memory(1);
        assert_eq!(attachment.iova_range(), window);
        for first in [window.first() - PAGE, window.last() + 1, window.last()] {
            let range = IovaRange::new(first, PAGE).unwrap();
            assert_eq!(
                attachment.map(0, range, RW, backing(&memory, 0)),
                Err(OpError::OutOfRange)
            );
        }
        let top = IovaRange::new(window.last() - 0xfff, PAGE).unwrap();
        attachment.map(0, top, RW, backing(&memory, 0)).unwrap();
    }
}

#[test]
fn address_spaces_do_not_know_each_other() {
    for model in Model::ON_CHIP {
        let world = World::with_traits(model, |traits| traits.spaces = 2);
        let attachment = world.attach().unwrap();
        assert_eq!(attachment.space_count(), 2);
        let (data, control) = (world.memory(2), world.memory(1));
        let range = world.range(&data, 0, 1);
        attachment.map(0, range, RW, backing(&data, 0)).unwrap();
        attachment.map(1, range, RW, backing(&control, 0)).unwrap();
        assert_eq!(attachment.mapped_bytes(), 2 * PAGE);
        attachment.reset_map(0).unwrap();
        assert!(world.reachable(0).is_empty() && table(&attachment, 0).is_empty());
        assert_eq!(world.reachable(1).len(), 1);
        assert_eq!(attachment.mapped_bytes(), PAGE);
        let settled = world.platform.block_on(attachment.settle(1));
        assert_eq!(settled, Ok(()));
        assert_eq!(world.parent.take_log().last().unwrap(), "settle(1)");
    }
}
