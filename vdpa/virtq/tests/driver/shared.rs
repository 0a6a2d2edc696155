//! Memory that several parties reach by handles.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use virtq::testing::HeapDma;
use virtq::{AccessError, Arena, DmaAddr, DmaAllocator, DmaError, SharedMemory};

fn source() -> (Arc<HeapDma>, Arc<dyn DmaAllocator>) {
    let heap = HeapDma::new();
    let dma = Arc::clone(&heap) as Arc<dyn DmaAllocator>;
    (heap, dma)
}

#[test]
fn clones_reach_the_same_bytes_and_others_do_not() {
    let (heap, dma) = source();
    let memory = SharedMemory::new(&dma, 100).unwrap();
    let (clone, other) = (memory.clone(), SharedMemory::new(&dma, 100).unwrap());
    memory.write(95, b"hello").unwrap();
    let mut bytes = [1; 7];
    clone.read(93, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0hello");
    // So does a device, at the platform's address.
    let addr = memory.platform_addr().expect("straight from the heap");
    heap.read(addr.offset(95), &mut bytes[..5]).unwrap();
    assert_eq!(&bytes[..5], b"hello");
    assert!(clone.is_same(&memory) && !other.is_same(&memory));
}

/// Otherwise safe code could make up an address that an IOMMU is then told.
#[test]
fn only_memory_of_the_platform_has_an_address_for_all_devices() {
    let (_, dma) = source();
    let memory = SharedMemory::new(&dma, 4096).unwrap();
    assert_eq!(memory.platform_addr(), Some(memory.addr()));
    let arena = Arena::new(memory, DmaAddr(0x1000)).unwrap() as Arc<dyn DmaAllocator>;
    let part = SharedMemory::new(&arena, 64).unwrap();
    assert_eq!((part.addr(), part.platform_addr()), (DmaAddr(0x1000), None));
}

#[test]
fn memory_goes_back_with_its_last_share() {
    let (heap, dma) = source();
    let memory = SharedMemory::new(&dma, 8192).unwrap();
    assert_eq!((memory.len(), memory.align()), (8192, 4096));
    let clone = memory.clone();
    drop(memory);
    assert_eq!(heap.outstanding(), 8192);
    assert_eq!(clone.write(8191, &[1]), Ok(()));
    drop(clone);
    assert_eq!(heap.outstanding(), 0);
}

#[test]
fn nothing_outside_is_copied() {
    let (_, dma) = source();
    let memory = SharedMemory::new(&dma, 16).unwrap();
    for (offset, len) in [(0, 17), (16, 1), (9, 8), (u64::MAX, 1), (u64::MAX - 1, 2)] {
        assert_eq!(
            memory.write(offset, &vec![7; len]),
            Err(AccessError::OutOfBounds)
        );
        assert_eq!(
            memory.read(offset, &mut vec![0; len]),
            Err(AccessError::OutOfBounds)
        );
    }
    let mut bytes = [1; 16];
    memory.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 16], "a copy that fails copies nothing");
    assert_eq!(memory.read(16, &mut []), Ok(()));
    assert_eq!(memory.read(17, &mut []), Err(AccessError::OutOfBounds));
}

#[test]
fn bits_are_set_and_taken_byte_by_byte() {
    let (_, dma) = source();
    let memory = SharedMemory::new(&dma, 16).unwrap();
    memory.set_bits(3, 0b0101).unwrap();
    memory.clone().set_bits(3, 0b1100).unwrap();
    memory.set_bits(4, 0xff).unwrap();
    let mut bytes = [0; 6];
    memory.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 0, 0b1101, 0xff, 0]);
    assert_eq!(memory.take_bits(3), Ok(0b1101));
    assert_eq!(memory.take_bits(3), Ok(0), "they are taken once");
    assert_eq!(memory.take_bits(4), Ok(0xff));
    for offset in [16, 17, u64::MAX] {
        assert_eq!(memory.set_bits(offset, 1), Err(AccessError::OutOfBounds));
        assert_eq!(memory.take_bits(offset), Err(AccessError::OutOfBounds));
    }
}

/// Each bit is set once, by one of two threads, while a third one takes what there is.
#[test]
fn no_bit_is_lost_between_those_who_set_and_one_who_takes() {
    let len = if cfg!(miri) { 8 } else { 50_000 };
    let (_, dma) = source();
    let memory = SharedMemory::new(&dma, len).unwrap();
    let setting = AtomicU32::new(2);
    let mut taken = vec![0u8; len];
    let mut twice = 0;
    thread::scope(|scope| {
        for nibble in [0, 4] {
            let (memory, setting) = (&memory, &setting);
            scope.spawn(move || {
                for bit in nibble..nibble + 4 {
                    for offset in 0..memory.len() {
                        memory.set_bits(offset, 1 << bit).unwrap();
                    }
                }
                setting.fetch_sub(1, Ordering::Release);
            });
        }
        loop {
            let last = setting.load(Ordering::Acquire) == 0;
            for (offset, taken) in (0..).zip(&mut taken) {
                let bits = memory.take_bits(offset).unwrap();
                twice |= *taken & bits;
                *taken |= bits;
            }
            if last {
                break;
            }
        }
    });
    assert!(taken.iter().all(|bits| *bits == 0xff), "a bit is lost");
    assert_eq!(twice, 0, "a bit is taken twice");
}

#[test]
fn sizes_that_cannot_exist_are_refused() {
    let dma = HeapDma::limited(4096) as Arc<dyn DmaAllocator>;
    let error = |len| SharedMemory::new(&dma, len).unwrap_err();
    assert_eq!(error(0), DmaError::BadSize);
    assert_eq!(error(usize::MAX), DmaError::BadSize);
    assert_eq!(error(4097), DmaError::OutOfMemory);
}
