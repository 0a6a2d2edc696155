//! Memory whose address for a device is given by a placement.

use std::alloc::Layout;
use std::sync::{Arc, Mutex};

use virtq::testing::HeapDma;
use virtq::{
    Arena, ArenaError, DeviceMemory, DmaAddr, DmaAllocator, DmaBuffer, DmaError, PlacedDma,
    Placement,
};

/// A placement that gives the addresses it is told to, and remembers what lies there.
#[derive(Default)]
struct Addresses {
    next: Mutex<Vec<Result<DmaAddr, DmaError>>>,
    placed: Mutex<Vec<(DmaAddr, DeviceMemory)>>,
}

impl Addresses {
    fn lying_at(addr: DmaAddr) -> Arc<Self> {
        Self::with([Ok(addr)])
    }

    fn with<const N: usize>(mut next: [Result<DmaAddr, DmaError>; N]) -> Arc<Self> {
        next.reverse();
        Arc::new(Self {
            next: Mutex::new(next.into()),
            ..Self::default()
        })
    }

    fn count(&self) -> usize {
        self.placed.lock().unwrap().len()
    }
}

/// What the allocator is given: a share of the addresses.
struct Place(Arc<Addresses>);

// SAFETY: no device reaches the memory.
unsafe impl Placement for Place {
    fn place(&self, memory: &DeviceMemory) -> Result<DmaAddr, DmaError> {
        let addr = self.0.next.lock().unwrap().pop().unwrap()?;
        self.0.placed.lock().unwrap().push((addr, memory.clone()));
        Ok(addr)
    }

    fn withdraw(&self, addr: DmaAddr, len: u64) {
        let mut placed = self.0.placed.lock().unwrap();
        let at = placed
            .iter()
            .rposition(|(known, memory)| (*known, memory.len()) == (addr, len));
        placed.remove(at.expect("what is withdrawn was placed"));
    }
}

fn placed(heap: &Arc<HeapDma>, addresses: &Arc<Addresses>) -> Arc<dyn DmaAllocator> {
    let heap = Arc::clone(heap) as Arc<dyn DmaAllocator>;
    PlacedDma::new(heap, Place(Arc::clone(addresses)))
}

#[test]
fn a_buffer_lies_where_it_was_placed_and_is_withdrawn_with_its_last_part() {
    let heap = HeapDma::new();
    let addresses = Addresses::lying_at(DmaAddr(0x7_0000));
    let dma = placed(&heap, &addresses);
    let mut buffer = DmaBuffer::new(&dma, 64).unwrap();
    assert_eq!(buffer.addr(), DmaAddr(0x7_0000));
    buffer[..5].copy_from_slice(b"hello");
    {
        let (_, memory) = &addresses.placed.lock().unwrap()[0];
        let mut bytes = [0; 5];
        heap.read(memory.addr(), &mut bytes).unwrap();
        assert_eq!(&bytes, b"hello", "both reach the same bytes");
        assert_ne!(memory.platform_addr(), Some(buffer.addr()));
    }
    let (head, tail) = buffer.split_at(16);
    drop(head);
    assert_eq!(addresses.count(), 1);
    drop(tail);
    assert_eq!((addresses.count(), heap.outstanding()), (0, 0));
}

#[test]
fn memory_outlives_the_buffer_while_somebody_has_a_share() {
    let heap = HeapDma::new();
    let addresses = Addresses::lying_at(DmaAddr(0));
    let buffer = DmaBuffer::new(&placed(&heap, &addresses), 64).unwrap();
    let share = addresses.placed.lock().unwrap()[0].1.clone();
    drop(buffer);
    assert_eq!((addresses.count(), heap.outstanding()), (0, 64));
    drop(share);
    assert_eq!(heap.outstanding(), 0);
}

#[test]
fn a_placement_that_has_no_address_gives_no_memory() {
    let heap = HeapDma::new();
    let addresses = Addresses::with([Err(DmaError::OutOfMemory)]);
    let error = DmaBuffer::new(&placed(&heap, &addresses), 64).unwrap_err();
    assert_eq!((error, heap.outstanding()), (DmaError::OutOfMemory, 0));
}

#[test]
fn an_address_that_is_misaligned_or_wraps_is_not_used() {
    let heap = HeapDma::new();
    let last = DmaAddr(u64::MAX - 4095);
    let addresses = Addresses::with([
        Ok(DmaAddr(0x7_0800)),
        Ok(last),
        Ok(last),
        Ok(DmaAddr(0x7_0000)),
    ]);
    let dma = placed(&heap, &addresses);
    let new = |len| DmaBuffer::new(&dma, len).map(|buffer| buffer.addr());
    assert_eq!(new(4096), Err(DmaError::BadAddress));
    assert_eq!(new(4097), Err(DmaError::BadAddress));
    assert_eq!(new(4096), Ok(last));
    assert_eq!(new(4096), Ok(DmaAddr(0x7_0000)));
    assert_eq!((addresses.count(), heap.outstanding()), (0, 0));
}

/// Which memory goes back must not depend on an address that safe code has made up.
#[test]
fn two_blocks_at_one_address_are_two_blocks() {
    let heap = HeapDma::new();
    let addresses = Addresses::with([Ok(DmaAddr(0x1000)), Ok(DmaAddr(0x1000))]);
    let dma = placed(&heap, &addresses);
    let mut first = DmaBuffer::new(&dma, 16).unwrap();
    let second = DmaBuffer::new(&dma, 16).unwrap();
    drop(second);
    first.fill(9);
    assert_eq!((first[15], heap.outstanding()), (9, 16));
}

#[test]
fn what_was_placed_is_nobody_elses_arena() {
    let heap = HeapDma::new();
    let addresses = Addresses::lying_at(DmaAddr(0x1000));
    let buffer = DmaBuffer::new(&placed(&heap, &addresses), 4096).unwrap();
    let memory = addresses.placed.lock().unwrap()[0].1.clone();
    assert_eq!(
        Arena::new((*memory).clone(), DmaAddr(0)).unwrap_err(),
        ArenaError::Taken
    );
    drop(buffer);
}

#[test]
#[cfg_attr(miri, ignore = "the memory is lost, as it should be")]
fn a_block_outlives_its_allocator() {
    let heap = HeapDma::new();
    let addresses = Addresses::lying_at(DmaAddr(0x1000));
    let dma = placed(&heap, &addresses);
    let block = dma.allocate(Layout::new::<u64>()).unwrap();
    drop(dma);
    assert_eq!(heap.outstanding(), 8);
    // SAFETY: nobody has given the block back, so it is still valid.
    let first = unsafe { block.ptr.read() };
    assert_eq!(first, 0);
}
