//! What safe code can do with memory that it shares, on purpose or not, without undefined
//! behaviour: Miri runs these, and they try to break the rules.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::thread;

use virtq::device::{
    Access, DeviceConfig, DeviceQueue, DeviceTlb, Fault, Lookup, Mapped, TransferError,
};
use virtq::testing::HeapDma;
use virtq::{
    AccessError, AddReason, Arena, ArenaError, DeviceHold, DeviceMemory, DmaAddr, DmaAllocator,
    DmaBuffer, Queue, QueueConfig, RingAddresses, RingFeatures, RingState, SharedMemory, Writable,
};

const BASE: DmaAddr = DmaAddr(0x10_0000);
const LEN: usize = 4096;

fn memory() -> SharedMemory {
    let dma: Arc<dyn DmaAllocator> = HeapDma::new();
    SharedMemory::new(&dma, LEN).unwrap()
}

fn arena(memory: &SharedMemory) -> Result<Arc<dyn DmaAllocator>, ArenaError> {
    Ok(Arena::new(memory.clone(), BASE)?)
}

#[test]
fn nothing_changes_behind_a_slice_of_a_buffer() {
    let memory = memory();
    let arena = arena(&memory).unwrap();
    let mut buffer = DmaBuffer::new(&arena, 64).unwrap();
    let bytes: &mut [u8] = &mut buffer;
    let claimed = Err(AccessError::Claimed);
    assert_eq!(memory.write(0, &[1; 64]), claimed);
    assert_eq!(memory.read(0, &mut [0; 64]), claimed);
    assert_eq!(memory.set_bits(0, 1), claimed);
    assert_eq!(memory.take_bits(0), Err(AccessError::Claimed));
    assert_eq!(bytes, [0; 64]);
    drop((buffer, arena));
    assert_eq!(memory.write(0, &[1; 64]), Ok(()));
}

/// The arena's memory is claimed; what lies in one of its blocks is memory in its own right.
#[test]
fn memory_inside_of_a_claimed_one_is_open() {
    let outer = memory();
    let arena = arena(&outer).unwrap();
    let inner = SharedMemory::new(&arena, 64).unwrap();
    assert_eq!(inner.write(0, &[1; 64]), Ok(()));
    assert_eq!(outer.write(0, &[2; 64]), Err(AccessError::Claimed));
}

#[test]
fn memory_that_a_device_may_write_gives_no_slices() {
    let memory = memory();
    let open = DeviceMemory::open(&memory).unwrap();
    let again = open.clone();
    assert_eq!(arena(&memory).map(drop), Err(ArenaError::Taken));
    drop(open);
    assert_eq!(arena(&memory).map(drop), Err(ArenaError::Taken));
    assert_eq!(memory.write(0, &[1]), Ok(()), "it is open to programs, too");
    drop(again);
    let arena = arena(&memory).unwrap();
    assert_eq!(
        DeviceMemory::open(&memory).map(drop),
        Err(AccessError::Claimed)
    );
    drop(arena);
    assert!(DeviceMemory::open(&memory).is_ok());
}

/// The ranges overlap in every way, and none of the accesses is of one size with another.
#[test]
fn threads_may_access_memory_at_the_same_time() {
    let memory = memory();
    thread::scope(|scope| {
        for start in 0..3 {
            let memory = &memory;
            scope.spawn(move || {
                for len in [1, 2, 7, 8, 33] {
                    memory.write(start, &vec![1; len]).unwrap();
                    memory.read(2 - start, &mut vec![0; len]).unwrap();
                    memory.set_bits(start, 2).unwrap();
                    memory.take_bits(1).unwrap();
                }
            });
        }
    });
}

/// In either order: a writer is through before a buffer exists, or is refused.
#[test]
fn a_claim_and_a_write_exclude_each_other() {
    let memory = memory();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                let _ = memory.write(0, &[1; 8]);
            }
        });
        for _ in 0..20 {
            let Ok(arena) = arena(&memory) else {
                thread::yield_now();
                continue;
            };
            let mut buffer = DmaBuffer::new(&arena, 64).unwrap();
            buffer.fill(2);
            assert_eq!(buffer[..], [2; 64]);
        }
    });
}

/// All of a memory, at [`BASE`].
struct Everything(DeviceMemory);

impl Lookup for Everything {
    fn lookup(&self, _: DmaAddr, _: Access) -> Result<Mapped, Fault> {
        Ok(Mapped {
            first: BASE,
            last: DmaAddr(BASE.0 + (LEN as u64 - 1)),
            readable: true,
            writable: true,
            memory: self.0.clone(),
            offset: 0,
        })
    }

    fn generation(&self) -> u64 {
        0
    }
}

/// A client writes its rings by hand and changes them while a device works on them, and its chains
/// lead the device to the rings themselves.
#[test]
fn a_client_may_race_with_its_device() {
    let memory = memory();
    let at = |offset| DmaAddr(BASE.0 + offset);
    let config = DeviceConfig {
        size: 4,
        features: RingFeatures::default(),
        addresses: RingAddresses {
            descriptor: at(0),
            driver: at(256),
            device: at(512),
        },
        state: RingState::Split { index: 0 },
        chain_max: 4,
        in_flight_max: 4,
    };
    let lookup = Everything(DeviceMemory::open(&memory).unwrap());
    let mut queue = DeviceQueue::new(&config, DeviceTlb::new(lookup)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..8u16 {
                let mut descriptor = [0; 16];
                let target = at(if round % 2 == 0 { 256 } else { 0 });
                descriptor[..8].copy_from_slice(&target.0.to_le_bytes());
                descriptor[8] = 8;
                descriptor[12] = 2;
                memory.write(0, &descriptor).unwrap();
                memory.write(258, &(round + 1).to_le_bytes()).unwrap();
                memory.read(512, &mut [0; 32]).unwrap();
            }
        });
        for _ in 0..8 {
            match queue.pop() {
                Ok(Some(chain)) => {
                    let written: Result<usize, TransferError> = queue.push(&chain, 0, &[0; 4]);
                    let _ = written.and_then(|_| queue.pull(&chain, 0, &mut [0; 4]));
                    if queue.complete(chain, 4).is_err() {
                        break;
                    }
                    queue.publish().ok();
                }
                Ok(None) => thread::yield_now(),
                Err(_) => break,
            }
        }
    });
}

/// Its address would lead the queue's device to other memory.
#[test]
fn a_queue_takes_no_buffer_of_another_device() {
    let platform: Arc<dyn DmaAllocator> = HeapDma::new();
    let (one, other) = (memory(), memory());
    let (one, other) = (arena(&one).unwrap(), arena(&other).unwrap());
    let config = QueueConfig {
        size: 4,
        align: 1,
        features: RingFeatures::default(),
    };
    for (home, foreign) in [(&one, [&other, &platform]), (&platform, [&one, &other])] {
        let mut queue = Queue::new(&config, home, &DeviceHold::new()).unwrap();
        for dma in foreign {
            let buffer = DmaBuffer::new(dma, 64).unwrap();
            let (head, tail) = buffer.split_at(32);
            for part in [head, tail] {
                let refused = queue.add(Writable(part)).unwrap_err();
                assert_eq!(refused.reason, AddReason::Foreign);
            }
        }
        let buffer = DmaBuffer::new(home, 64).unwrap();
        assert!(queue.add(Writable(buffer.split_at(32).1)).is_ok());
    }
}
