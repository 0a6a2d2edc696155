//! Both ends in one test: the crate's device side serves its driver side.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{BTreeMap, VecDeque};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use virtq::device::{Chain as Taken, DeviceConfig, DeviceQueue, Direct, Region};
use virtq::{
    AddReason, Chain, DeviceHold, DmaAddr, DmaAllocator, DmaBlock, DmaBuffer, DmaError, Notify,
    Pending, Queue, QueueConfig, RingFeatures, RingState, Segment,
};

const BASE: u64 = 0x5000_0000;
const LAYOUT: Layout = match Layout::from_size_align(0x20_0000, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two"),
};

/// One block of memory that is handed out in pieces and kept until the end.
struct Arena {
    ptr: NonNull<u8>,
    next: Mutex<usize>,
}

// SAFETY: the memory is bound to no thread.
unsafe impl Send for Arena {}
// SAFETY: the counter is behind a lock, and the pieces belong to the one who took them.
unsafe impl Sync for Arena {}

impl Arena {
    fn new() -> Arc<Self> {
        // SAFETY: the layout is not empty.
        let ptr = NonNull::new(unsafe { alloc_zeroed(LAYOUT) }).expect("memory is left");
        Arc::new(Self {
            ptr,
            next: Mutex::new(0),
        })
    }

    fn memory(&self) -> Direct {
        let region = Region {
            addr: DmaAddr(BASE),
            ptr: self.ptr,
            len: LAYOUT.size(),
        };
        // SAFETY: the tests drop the queue before the arena.
        unsafe { Direct::new(vec![region]) }.expect("one region")
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.ptr.as_ptr(), LAYOUT) };
    }
}

// SAFETY: each block is a zeroed part of the arena of its own; no part is handed out twice.
unsafe impl DmaAllocator for Arena {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        let mut next = self.next.lock().expect("no test panics with the lock");
        let start = next.next_multiple_of(layout.align());
        if start + layout.size() > LAYOUT.size() {
            return Err(DmaError::OutOfMemory);
        }
        *next = start + layout.size();
        // SAFETY: the start lies inside the arena.
        let ptr = unsafe { self.ptr.add(start) };
        Ok(DmaBlock {
            ptr,
            addr: DmaAddr(BASE + start as u64),
            layout,
        })
    }

    unsafe fn deallocate(&self, _block: DmaBlock) {}
}

/// A number, and room for answers.
struct Message {
    number: DmaBuffer,
    rooms: Vec<DmaBuffer>,
}

// SAFETY: the segments are whole buffers that the value owns.
unsafe impl Chain for Message {
    const MAX_SEGMENTS: u16 = 5;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        std::iter::once(Segment::of(&self.number))
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.rooms.iter().map(Segment::of)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add { rooms: usize },
    Publish,
    Pop,
    PutBack,
    Complete { which: usize },
    Notify,
    Take { wait: bool },
    Sleep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0usize..=4).prop_map(|rooms| Step::Add { rooms }),
        3 => Just(Step::Publish),
        5 => Just(Step::Pop),
        2 => Just(Step::PutBack),
        5 => any::<usize>().prop_map(|which| Step::Complete { which }),
        3 => Just(Step::Notify),
        3 => any::<bool>().prop_map(|wait| Step::Take { wait }),
        1 => Just(Step::Sleep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_answered_once_and_no_side_oversleeps(
        size in 1u16..20,
        packed: bool,
        event_idx: bool,
        indirect: bool,
        in_order: bool,
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let size = if packed { size } else { size.next_power_of_two() };
        let features = RingFeatures::NONE.with_packed(packed).with_event_idx(event_idx).with_indirect(indirect).with_in_order(in_order);
        let arena = Arena::new();
        let dma = Arc::clone(&arena) as Arc<dyn DmaAllocator>;
        let setup = QueueConfig { size, align: 1, features };
        let mut driver = Queue::<Message>::new(&setup, &dma, &DeviceHold::new()).unwrap();
        let mut device = DeviceQueue::new(
            &DeviceConfig {
                size,
                features,
                addresses: driver.addresses(),
                state: RingState::start(features),
                chain_max: size.max(5),
                in_flight_max: size,
            },
            arena.memory(),
        )
        .unwrap();
        let mut serial = 0u32;
        let (mut added, mut published) = (VecDeque::new(), VecDeque::new());
        let mut held: Vec<(Taken, u32)> = Vec::new();
        // What was taken and not put back, completed or not.
        let mut taken = Vec::new();
        // What the device has answered, by number, and how many of them the driver has been shown.
        let mut answers = BTreeMap::new();
        let mut completed = 0;
        let (mut device_sleeps, mut driver_sleeps) = (false, false);
        for step in steps {
            match step {
                Step::Add { rooms } => {
                    let mut number = DmaBuffer::new(&dma, 4).unwrap();
                    number.copy_from_slice(&serial.to_le_bytes());
                    let rooms = (0..rooms).map(|_| DmaBuffer::new(&dma, 3).unwrap()).collect();
                    match driver.add(Message { number, rooms }) {
                        Ok(_) => {
                            added.push_back(serial);
                            serial += 1;
                        }
                        Err(error) => {
                            prop_assert!(
                                matches!(error.reason, AddReason::Full | AddReason::TooLong)
                            );
                        }
                    }
                }
                Step::Publish => {
                    let fresh = !added.is_empty();
                    published.append(&mut added);
                    let notify = driver.publish();
                    if fresh && device_sleeps {
                        prop_assert_eq!(notify, Notify::Needed);
                        device_sleeps = false;
                    }
                }
                Step::Pop => {
                    let chain = device.pop().unwrap();
                    prop_assert_eq!(chain.is_some(), !published.is_empty());
                    if let Some(chain) = chain {
                        let mut number = [0; 4];
                        prop_assert_eq!(device.pull(&chain, 0, &mut number), Ok(4));
                        let number = u32::from_le_bytes(number);
                        prop_assert_eq!(Some(number), published.pop_front());
                        held.push((chain, number));
                        taken.push(number);
                    }
                }
                Step::PutBack => {
                    let Some((chain, number)) = held.pop() else { continue };
                    let result = device.put_back(chain);
                    // Nothing was completed that was taken later.
                    prop_assert_eq!(result.is_ok(), taken.last() == Some(&number));
                    match result {
                        Ok(()) => {
                            taken.pop();
                            published.push_front(number);
                            prop_assert_eq!(device.is_pending(), Ok(true));
                        }
                        Err(chain) => held.push((chain, number)),
                    }
                }
                Step::Complete { which } if !held.is_empty() => {
                    // In order if that was agreed: what the device side reorders is in its own
                    // tests.
                    let which = if in_order { 0 } else { which % held.len() };
                    let (chain, number) = held.remove(which);
                    let room = usize::try_from(chain.writable_len()).unwrap();
                    let answer = vec![number as u8 | 1; room];
                    prop_assert_eq!(device.push(&chain, 0, &answer), Ok(room));
                    device.complete(chain, u32::try_from(room).unwrap()).unwrap();
                    answers.insert(number, answer);
                    completed += 1;
                }
                Step::Complete { .. } => {}
                Step::Notify => {
                    let notify = device.notify();
                    if completed > 0 && driver_sleeps {
                        prop_assert!(notify, "the driver sleeps and nobody wakes it");
                        driver_sleeps = false;
                    }
                    completed = 0;
                }
                Step::Take { wait } => {
                    while let Some(used) = driver.take().unwrap() {
                        let number = u32::from_le_bytes(used.chain.number[..].try_into().unwrap());
                        let answer = answers.remove(&number).expect("answered, and not yet taken");
                        prop_assert_eq!(used.written as usize, answer.len());
                        let rooms = used.chain.rooms.iter().flat_map(|room| room.iter().copied());
                        prop_assert_eq!(rooms.collect::<Vec<u8>>(), answer);
                    }
                    prop_assert_eq!(answers.len(), completed, "all that was shown was taken");
                    driver_sleeps = wait;
                    if wait {
                        prop_assert_eq!(driver.enable_interrupts(), Pending::No);
                    } else {
                        driver.disable_interrupts();
                    }
                }
                Step::Sleep => {
                    let pending = device.enable_notifications().unwrap();
                    prop_assert_eq!(pending == Pending::Yes, !published.is_empty());
                    device_sleeps = pending == Pending::No;
                }
            }
        }
    }
}
