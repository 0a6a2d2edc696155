//! Parts of one piece of memory, against a model that knows whose each part is.

use std::alloc::Layout;
use std::sync::Arc;

use proptest::prelude::*;
use virtq::testing::HeapDma;
use virtq::{
    Arena, ArenaError, DmaAddr, DmaAllocator, DmaBlock, DmaBuffer, DmaError, SharedMemory,
};

const LEN: usize = 0x4000;
/// Not the address of anything on the host or for the platform's devices.
const BASE: DmaAddr = DmaAddr(0x7fff_f000);

fn memory(heap: &Arc<HeapDma>, len: usize) -> SharedMemory {
    let dma = Arc::clone(heap) as Arc<dyn DmaAllocator>;
    SharedMemory::new(&dma, len).unwrap()
}

fn arena() -> (Arc<HeapDma>, SharedMemory, Arc<Arena>) {
    let heap = HeapDma::new();
    let memory = memory(&heap, LEN);
    let arena = Arena::new(memory.clone(), BASE).unwrap();
    (heap, memory, arena)
}

#[test]
fn a_buffer_lies_in_the_memory_at_the_devices_address() {
    let (heap, memory, arena) = arena();
    let dma = arena as Arc<dyn DmaAllocator>;
    let _first = DmaBuffer::new(&dma, 100).unwrap();
    let mut buffer = DmaBuffer::new(&dma, 5).unwrap();
    buffer.copy_from_slice(b"hello");
    let mut bytes = [0; 5];
    let offset = usize::try_from(buffer.addr().0 - BASE.0).unwrap();
    heap.read(memory.addr().offset(offset), &mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
}

#[test]
fn the_device_must_find_the_memory_with_the_same_alignment() {
    let heap = HeapDma::new();
    let new = |base| Arena::new(memory(&heap, LEN), DmaAddr(base)).map(|_| ());
    assert_eq!(new(0x1234_0800), Err(ArenaError::Misaligned));
    assert_eq!(new(u64::MAX - 0xfff), Err(ArenaError::BadAddress));
    assert_eq!(new(0), Ok(()));
}

#[test]
fn memory_is_one_arena_at_a_time() {
    let (_, memory, arena) = arena();
    let again = || Arena::new(memory.clone(), BASE).map(|_| ());
    assert_eq!(again(), Err(ArenaError::Taken));
    let dma = arena as Arc<dyn DmaAllocator>;
    let buffer = DmaBuffer::new(&dma, 1).unwrap();
    drop(dma);
    assert_eq!(
        again(),
        Err(ArenaError::Taken),
        "the buffer keeps the arena"
    );
    drop(buffer);
    assert_eq!(again(), Ok(()));
}

#[test]
#[cfg_attr(miri, ignore = "the memory is lost, as it should be")]
fn a_block_that_is_out_keeps_the_memory_from_others() {
    let heap = HeapDma::new();
    let memory = memory(&heap, LEN);
    let arena = Arena::new(memory.clone(), BASE).unwrap();
    let block = arena.allocate(Layout::new::<u64>()).unwrap();
    drop(arena);
    let again = Arena::new(memory.clone(), BASE).map(|_| ());
    assert_eq!(again, Err(ArenaError::Taken));
    drop(memory);
    assert_eq!(heap.outstanding(), LEN);
    // SAFETY: nobody has given the block back, so it is still valid.
    let first = unsafe { block.ptr.read() };
    assert_eq!(first, 0);
}

/// Above a page the alignments of the pointer and of the address need not meet anywhere.
#[test]
fn a_large_alignment_holds_for_both_or_is_refused() {
    let (_, _, arena) = arena();
    for align in [0x1000, 0x2000, 0x4000, 0x8000_0000] {
        let layout = Layout::from_size_align(64, align).unwrap();
        match arena.allocate(layout) {
            Ok(block) => {
                check_alignment(&block);
                give_back(&arena, block);
            }
            Err(error) => assert_eq!((error, align > 0x1000), (DmaError::OutOfMemory, true)),
        }
    }
    let whole = Layout::from_size_align(LEN, 0x1000).unwrap();
    let block = arena.allocate(whole).expect("nothing is left behind");
    give_back(&arena, block);
}

#[test]
fn a_size_of_zero_is_refused() {
    let (_, _, arena) = arena();
    let empty = Layout::from_size_align(0, 1).unwrap();
    assert_eq!(arena.allocate(empty), Err(DmaError::BadSize));
}

fn check_alignment(block: &DmaBlock) {
    let align = block.layout.align();
    assert!(block.ptr.addr().get().is_multiple_of(align));
    assert!(block.addr.0.is_multiple_of(align as u64));
}

fn give_back(arena: &Arena, block: DmaBlock) {
    // SAFETY: the block came from the arena, and the test forgets it.
    unsafe { arena.deallocate(block) };
}

/// The first aligned place where enough bytes are free: at the beginning, or behind a block.
fn first_fit(blocks: &[DmaBlock], layout: Layout) -> Option<usize> {
    let taken = |block: &DmaBlock| {
        let start = usize::try_from(block.addr.0 - BASE.0).unwrap();
        start..start + block.layout.size()
    };
    let behind = |end: usize| {
        let place = BASE.offset(end).0.next_multiple_of(layout.align() as u64);
        usize::try_from(place - BASE.0).unwrap()
    };
    let is_free = |&start: &usize| {
        let end = start + layout.size();
        let apart = |block| taken(block).end <= start || end <= taken(block).start;
        end <= LEN && blocks.iter().all(apart)
    };
    let ends = blocks.iter().map(|block| taken(block).end);
    ends.chain([0]).map(behind).filter(is_free).min()
}

#[derive(Clone, Debug)]
enum Step {
    Take { size: usize, align: usize },
    Give { which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let take = (1usize..0x900, 0u32..=12).prop_map(|(size, shift)| Step::Take {
        size,
        align: 1 << shift,
    });
    prop_oneof![3 => take, 2 => any::<usize>().prop_map(|which| Step::Give { which })]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: if cfg!(miri) { 4 } else { ProptestConfig::default().cases / 4 },
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_byte_has_one_owner_and_room_is_found_where_it_is(
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 30 } else { 200 }),
    ) {
        let (heap, memory, arena) = arena();
        let mut blocks: Vec<DmaBlock> = Vec::new();
        for step in steps {
            match step {
                Step::Take { size, align } => {
                    let layout = Layout::from_size_align(size, align).unwrap();
                    match (arena.allocate(layout), first_fit(&blocks, layout)) {
                        (Ok(block), Some(start)) => {
                            check_alignment(&block);
                            prop_assert_eq!(block.addr, BASE.offset(start));
                            let mut bytes = vec![1; size];
                            let at = memory.addr().offset(start);
                            heap.read(at, &mut bytes).unwrap();
                            prop_assert!(bytes == vec![0; size], "a block is zeroed");
                            heap.write(at, &vec![0xa5; size]).unwrap();
                            blocks.push(block);
                        }
                        (Err(DmaError::OutOfMemory), None) => {}
                        (result, expected) => prop_assert!(false, "{result:?}, not {expected:?}"),
                    }
                }
                Step::Give { which } if !blocks.is_empty() => {
                    let block = blocks.swap_remove(which % blocks.len());
                    give_back(&arena, block);
                }
                Step::Give { .. } => {}
            }
        }
        for block in blocks {
            give_back(&arena, block);
        }
        let whole = Layout::from_size_align(LEN, 1).unwrap();
        let block = arena.allocate(whole).expect("free ranges are joined again");
        give_back(&arena, block);
    }
}
