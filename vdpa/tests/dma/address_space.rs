//! What a software device can reach, while it looks things up and control changes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vdpa::dma::AddressSpace;
use vdpa::iotlb::{Capacity, Full, Iotlb, IovaRange, MapError, Permission};
use virtq::device::{Access, DeviceTlb, Fault, Lookup, Memory};
use virtq::testing::HeapDma;
use virtq::{DmaAddr, DmaAllocator, Event, SharedMemory};

use crate::world::{PAGE, RW, backing};

const IOVA: u64 = 0x40_0000_0000;

fn memory(heap: &Arc<HeapDma>, pages: u64) -> SharedMemory {
    let dma = Arc::clone(heap) as Arc<dyn DmaAllocator>;
    SharedMemory::new(&dma, usize::try_from(pages * PAGE).unwrap()).unwrap()
}

fn pages(page: u64, pages: u64) -> IovaRange {
    IovaRange::new(IOVA + page * PAGE, pages * PAGE).unwrap()
}

#[test]
fn a_look_up_finds_the_whole_mapping_with_its_permission() {
    let space = AddressSpace::new(8);
    let heap = HeapDma::new();
    let memory = memory(&heap, 4);
    space
        .map(pages(0, 2), Permission::READ, backing(&memory, 1))
        .unwrap();
    let mapped = space
        .lookup(DmaAddr(IOVA + PAGE + 7), Access::Read)
        .unwrap();
    assert_eq!(
        (mapped.first.0, mapped.last.0, mapped.offset),
        (IOVA, IOVA + 2 * PAGE - 1, PAGE)
    );
    assert!(mapped.readable && !mapped.writable && mapped.memory.is_same(&memory));
    let fault = |addr, access| space.lookup(DmaAddr(addr), access).err();
    assert_eq!(fault(IOVA, Access::Write), Some(Fault::Permission));
    assert_eq!(fault(IOVA - 1, Access::Read), Some(Fault::NoMapping));
}

#[test]
fn what_is_taken_away_is_no_longer_translated_and_its_memory_goes() {
    let space = Arc::new(AddressSpace::new(8));
    let heap = HeapDma::new();
    let told = Arc::new(Event::new());
    space.watch(Arc::clone(&told));
    let queue = DeviceTlb::new(Arc::clone(&space));
    let at = |page: u64| queue.translate(DmaAddr(IOVA + page * PAGE), 1, Access::Write);

    space
        .map(pages(0, 4), RW, backing(&memory(&heap, 4), 0))
        .unwrap();
    assert!(!told.take(), "a new mapping makes no other one stale");
    assert!(at(0).is_ok() && at(1).is_ok());
    space.unmap(pages(1, 1)).unwrap();
    assert!(told.take());
    assert_eq!(at(1).err(), Some(Fault::NoMapping));
    assert!(at(2).is_ok(), "the rest is there");
    space.clear();
    assert!(told.take());
    assert_eq!(at(2).err(), Some(Fault::NoMapping));
    assert_eq!(heap.outstanding(), 0x4000, "the queue may still use it");
    queue.generation();
    assert_eq!(heap.outstanding(), 0);
}

#[test]
fn the_generation_grows_when_something_is_taken_away() {
    let space = AddressSpace::new(8);
    let heap = HeapDma::new();
    let start = space.generation();
    space
        .map(pages(0, 4), RW, backing(&memory(&heap, 4), 0))
        .unwrap();
    space.unmap(pages(8, 8)).unwrap();
    assert_eq!(space.generation(), start, "nothing was there");
    space.unmap(pages(0, 1)).unwrap();
    let unmapped = space.generation();
    assert!(unmapped > start);
    space.replace(&Iotlb::new(Capacity::Unlimited)).unwrap();
    assert!(space.generation() > unmapped);
}

#[test]
fn a_full_space_refuses_and_keeps_what_it_has() {
    let space = AddressSpace::new(2);
    let heap = HeapDma::new();
    let memory = memory(&heap, 8);
    space.map(pages(0, 3), RW, backing(&memory, 0)).unwrap();
    space.map(pages(4, 1), RW, backing(&memory, 4)).unwrap();
    let mapped = space.map(pages(6, 1), RW, backing(&memory, 6));
    assert_eq!(mapped, Err(MapError::Full(Full)));
    assert_eq!(space.unmap(pages(1, 1)), Err(Full));
    let mut table = Iotlb::new(Capacity::Unlimited);
    for page in 0..3 {
        table
            .map(pages(page, 1), RW, backing(&memory, page))
            .unwrap();
    }
    assert_eq!(space.replace(&table), Err(Full));
    let reaches = |page: u64| {
        let addr = DmaAddr(IOVA + page * PAGE);
        space.lookup(addr, Access::Read).is_ok()
    };
    assert_eq!(
        [0, 1, 2, 3, 4, 5].map(reaches),
        [true, true, true, false, true, false]
    );
    assert_eq!(
        space.map(pages(2, 1), RW, backing(&memory, 0)),
        Err(MapError::Overlap)
    );
    table.unmap(pages(2, 1)).unwrap();
    space.replace(&table).unwrap();
    assert_eq!([0, 1, 2, 4].map(reaches), [true, true, false, false]);
}

#[test]
fn queues_look_up_on_their_threads_while_mappings_come_and_go() {
    let space = Arc::new(AddressSpace::new(64));
    let heap = HeapDma::new();
    let steady = memory(&heap, 1);
    space.map(pages(0, 1), RW, backing(&steady, 0)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (space, stop) = (Arc::clone(&space), Arc::clone(&stop));
            scope.spawn(move || {
                let queue = DeviceTlb::new(space);
                while !stop.load(Ordering::Relaxed) {
                    queue.generation();
                    assert!(queue.translate(DmaAddr(IOVA), 8, Access::Write).is_ok());
                    // Mapped in one piece or not at all.
                    let addr = DmaAddr(IOVA + 4 * PAGE);
                    if let Ok(piece) = queue.translate(addr, 0x2000, Access::Read) {
                        assert_eq!(piece.len, 0x2000);
                    }
                }
            });
        }
        for _ in 0..rounds {
            let memory = memory(&heap, 2);
            space.map(pages(4, 2), RW, backing(&memory, 0)).unwrap();
            space.unmap(pages(4, 2)).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(heap.outstanding(), 0x1000);
}
