//! What an IOMMU says of itself, and what it is told: its addresses, batches, faults.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use vdpa::dma::{DmaFault, DmaFaultKind, DmaFaults, DmaSpace, MapTarget};
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::OpError;
use vdpa::platform::DomainError;
use virtq::DmaBuffer;

use crate::world::{Model, PAGE, RW, World, backing};

/// Where the pages of these tests are, in an address space that has no others.
const BASE: u64 = 0x7000_0000_0000;
const PAGES: u64 = 48;

fn pages(first: u64, count: u64) -> IovaRange {
    IovaRange::new(BASE + first * PAGE, count * PAGE).unwrap()
}

#[test]
fn memory_is_mapped_in_the_ranges_of_the_iommu_and_not_where_they_are_reserved() {
    let world = World::with_iommu(&[pages(0, 8), pages(16, 8)], &[pages(2, 2)]);
    let attachment = world.attach().unwrap();
    let memory = world.memory(16);
    assert_eq!(attachment.iova_range(), pages(0, 24));
    assert_eq!(
        attachment.iova_space().ranges(),
        [pages(0, 2), pages(4, 4), pages(16, 8)]
    );
    let map = |first, count| attachment.map(0, pages(first, count), RW, backing(&memory, 0));
    for (first, count) in [
        (0, 3),
        (2, 1),
        (3, 2),
        (7, 2),
        (8, 1),
        (4, 16),
        (23, 2),
        (24, 1),
    ] {
        assert_eq!(map(first, count), Err(OpError::OutOfRange), "{first}");
    }
    for (first, count) in [(0, 2), (4, 4), (16, 8)] {
        assert_eq!(map(first, count), Ok(()));
    }
    assert_eq!(world.reachable(0).len(), 3);
    attachment.reset_map(0).unwrap();
    assert!(world.reachable(0).is_empty());
}

#[test]
fn an_iommu_without_an_address_takes_no_client() {
    let world = World::with_iommu(&[pages(0, 4)], &[pages(0, 4)]);
    assert!(world.attach().is_err());
    assert!(!world.iommu.isolates(&world.unit));
    assert_eq!(world.unit.owner(), None);
}

#[test]
fn a_batch_is_one_invalidation() {
    let world = World::new(Model::Iommu);
    let attachment = world.attach().unwrap();
    let memory = world.memory(32);
    let at = |page, count| world.range(&memory, page, count);
    attachment.begin_batch(0).unwrap();
    for page in 0..16 {
        let to = backing(&memory, page);
        attachment.map(0, at(page, 1), RW, to).unwrap();
    }
    assert!(world.reachable(0).is_empty());
    attachment.end_batch(0).unwrap();
    assert_eq!(world.reachable(0).len(), 16);
    assert_eq!(world.iommu.invalidations(), 0, "nothing was taken away");

    attachment.begin_batch(0).unwrap();
    attachment.unmap(0, at(0, 8)).unwrap();
    let to = backing(&memory, 20);
    attachment.map(0, at(0, 4), Permission::READ, to).unwrap();
    attachment.end_batch(0).unwrap();
    assert_eq!(world.reachable(0).len(), 9);
    assert_eq!(world.iommu.invalidations(), 1);
    assert_eq!(world.iommu.calls(), 2);

    // What was taken away and came back is not touched.
    attachment.begin_batch(0).unwrap();
    attachment.unmap(0, at(8, 4)).unwrap();
    for page in 8..12 {
        let to = backing(&memory, page);
        attachment.map(0, at(page, 1), RW, to).unwrap();
    }
    attachment.end_batch(0).unwrap();
    assert_eq!(world.iommu.calls(), 2);
}

#[test]
fn what_is_left_of_a_mapping_stays_reachable_throughout_a_batch() {
    let world = World::new(Model::Iommu);
    let attachment = world.attach().unwrap();
    let memory = world.memory(8);
    let at = |page, count| world.range(&memory, page, count);
    let to = backing(&memory, 0);
    attachment.map(0, at(0, 8), RW, to).unwrap();
    attachment.begin_batch(0).unwrap();
    attachment.unmap(0, at(2, 3)).unwrap();
    let to = backing(&memory, 3);
    attachment.map(0, at(3, 1), RW, to).unwrap();
    attachment.end_batch(0).unwrap();
    let unmapped = world.iommu.unmapped();
    assert_eq!(unmapped, [at(2, 1), at(4, 1)]);
}

#[test]
fn memory_lives_until_the_iommu_has_let_go_of_it() {
    let world = World::new(Model::Iommu);
    let attachment = world.attach().unwrap();
    let memory = world.memory(1);
    let range = world.range(&memory, 0, 1);
    attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
    drop(memory);
    attachment.begin_batch(0).unwrap();
    attachment.unmap(0, range).unwrap();
    world.iommu.fail_after(0, DomainError::Timeout);
    assert_eq!(attachment.end_batch(0), Err(OpError::Timeout));
    assert_eq!(world.platform.heap().outstanding(), 0x1000);
    assert_eq!(world.reachable(0).len(), 1);
    attachment.begin_batch(0).unwrap();
    attachment.unmap(0, range).unwrap();
    assert_eq!(world.platform.heap().outstanding(), 0x1000);
    attachment.end_batch(0).unwrap();
    assert_eq!(world.platform.heap().outstanding(), 0);
}

#[test]
fn faults_are_counted_and_named_on_the_device_and_for_its_owner() {
    let world = World::new(Model::Iommu);
    let attachment = world.attach().unwrap();
    let memory = world.memory(2);
    let at = |page| world.range(&memory, page, 1);
    let to = backing(&memory, 0);
    attachment.map(0, at(0), Permission::READ, to).unwrap();
    let access = |page, how| world.iommu.access(0x20, None, at(page).first(), how);
    assert_eq!(access(0, Permission::READ), memory.platform_addr());
    assert_eq!(attachment.dma_faults(), DmaFaults::default());
    assert_eq!(access(0, Permission::WRITE), None);
    assert_eq!(access(1, Permission::READ), None);
    let last = DmaFault {
        addr: at(1).first(),
        access: Permission::READ,
        kind: DmaFaultKind::NotMapped,
    };
    let faults = DmaFaults {
        count: 2,
        last: Some(last),
    };
    assert_eq!(attachment.dma_faults(), faults);
    let facts = world.device.node().report().unwrap().facts;
    let addr = at(1).first();
    let told = format!("2, the last a read of {addr:#x}: nothing is mapped there");
    assert!(facts.contains(&("DMA faults", told)), "{facts:?}");

    // The next owner is told of none of that.
    world.detach(&attachment);
    let next = world.attach().unwrap();
    assert_eq!(next.dma_faults(), DmaFaults::default());
    assert_eq!(world.iommu.access(0x20, None, addr, RW), None);
    assert_eq!(next.dma_faults().count, 1);
    assert_eq!(world.unit.dma_faults().count, 3);
}

/// A first page, and a number of them.
fn stretch(most: u64) -> impl Strategy<Value = (u64, u64)> {
    (0..PAGES, 1..most).prop_map(|(first, count)| (first, count.min(PAGES - first)))
}

/// The pages that ranges cover.
fn covered(ranges: &[(u64, u64)]) -> Vec<bool> {
    let is_in = |page| move |(first, count): &(u64, u64)| (*first..first + count).contains(&page);
    (0..PAGES)
        .map(|page| ranges.iter().any(is_in(page)))
        .collect()
}

fn bounds(ranges: &[(u64, u64)]) -> Vec<IovaRange> {
    ranges
        .iter()
        .map(|(first, count)| pages(*first, *count))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { ProptestConfig::default().cases },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Blocks lie inside the ranges, touch nothing that is reserved, are a page apart, and are
    /// refused only if there is no room left.
    #[test]
    fn addresses_are_handed_out_where_there_are_any_and_nowhere_else(
        ranges in vec(stretch(24), 1..5),
        reserved in vec(stretch(6), 0..5),
        steps in vec((prop::bool::weighted(0.7), 1usize..6, 0usize..16), 1..60),
    ) {
        let world = World::with_iommu(&bounds(&ranges), &bounds(&reserved));
        let usable = covered(&ranges).into_iter().zip(covered(&reserved));
        let usable: Vec<_> = usable.map(|(there, reserved)| there && !reserved).collect();
        let attached = world.attach();
        prop_assert_eq!(attached.is_ok(), usable.contains(&true));
        let Ok(attachment) = attached else { return Ok(()) };
        let space = DmaSpace::new(&world.as_platform());
        space.attach(Arc::clone(&attachment) as Arc<dyn MapTarget>).unwrap();
        let dma = space.allocator();
        let mut buffers: Vec<DmaBuffer> = Vec::new();
        for (takes, count, which) in steps {
            if !takes {
                if !buffers.is_empty() {
                    buffers.swap_remove(which % buffers.len());
                }
                continue;
            }
            let taken: Vec<_> = buffers.iter().map(|buffer| {
                let first = (buffer.addr().0 - BASE) / PAGE;
                (first, (buffer.len() as u64).div_ceil(PAGE))
            }).collect();
            let free = |first: usize| {
                let fits = |page| usable.get(page).copied().unwrap_or(false);
                let apart = taken.iter().all(|(other, len)| {
                    first as u64 > other + len || ((first + count) as u64) < *other
                });
                (first..first + count).all(fits) && apart
            };
            match DmaBuffer::new(&dma, count * PAGE as usize) {
                Ok(buffer) => {
                    let first = (buffer.addr().0 - BASE) / PAGE;
                    prop_assert!(free(first as usize), "{first} of {taken:?}");
                    buffers.push(buffer);
                }
                Err(_) => prop_assert!(!(0..usable.len()).any(free), "{taken:?}"),
            }
        }
        drop(buffers);
        space.detach();
        prop_assert!(world.reachable(0).is_empty());
    }
}
