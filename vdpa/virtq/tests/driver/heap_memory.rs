//! Memory from the heap, as a device side reaches it.

use std::sync::Arc;

use virtq::device::{Access, Fault, Memory};
use virtq::testing::{HeapDma, HeapMemory};
use virtq::{DmaAddr, DmaAllocator, DmaBuffer};

#[test]
fn a_piece_ends_with_its_allocation() {
    let heap = HeapDma::new();
    let memory = HeapMemory::new(&heap);
    let dma = Arc::clone(&heap) as Arc<dyn DmaAllocator>;
    let buffer = DmaBuffer::new(&dma, 100).unwrap();
    let DmaAddr(start) = buffer.addr();
    let len = |offset: u64, len| {
        let piece = memory.translate(DmaAddr(start + offset), len, Access::Write);
        piece.map(|piece| piece.len)
    };
    assert_eq!(len(0, 10), Ok(10));
    assert_eq!(len(40, 1000), Ok(60));
    assert_eq!(len(99, 1), Ok(1));
    assert_eq!(len(100, 1), Err(Fault::NoMapping));
    let before = memory.translate(DmaAddr(start - 1), 1, Access::Read);
    assert_eq!(before, Err(Fault::NoMapping));
    let first = memory.translate(buffer.addr(), 1, Access::Read).unwrap();
    assert_eq!(first.ptr.as_ptr().cast_const(), buffer.as_ptr());
}

#[test]
fn what_the_driver_frees_cannot_be_reached_and_stays_until_nobody_looks() {
    let heap = HeapDma::new();
    let memories = [HeapMemory::new(&heap), HeapMemory::new(&heap)];
    let dma = Arc::clone(&heap) as Arc<dyn DmaAllocator>;
    let buffer = DmaBuffer::new(&dma, 8).unwrap();
    let addr = buffer.addr();
    let piece = memories[0].translate(addr, 8, Access::Write).unwrap();
    let generation = memories[0].generation();
    drop(buffer);
    assert_ne!(memories[0].generation(), generation);
    assert_eq!(heap.outstanding(), 0);
    for memory in &memories {
        let gone = memory.translate(addr, 8, Access::Write);
        assert_eq!(gone, Err(Fault::NoMapping));
    }
    let [first, last] = memories;
    drop(first);
    // SAFETY: the memory goes back to the heap with the last view of it, which is there still.
    unsafe { piece.ptr.as_ptr().write_volatile(1) };
    drop(last);
}
