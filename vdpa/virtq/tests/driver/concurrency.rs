//! The driver side in one thread against the device side in another, over the same memory. Each
//! sleeps whenever it has nothing to do, until the other says that it wants to be heard.
//!
//! Under Miri the processor reorders as much as the language permits; see also `src/doorbell.rs`.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use virtq::device::{
    self, Access, DeviceConfig, DeviceQueue, Direct, Fault, Memory, Piece, Region,
};
use virtq::{
    AddReason, Chain, DeviceHold, DmaAddr, DmaAllocator, DmaBlock, DmaBuffer, DmaError, Notify,
    Pending, Queue, QueueConfig, RingFeatures, RingState, Segment,
};

const CHAINS: usize = if cfg!(miri) { 12 } else { 100_000 };
const SIZE: u16 = if cfg!(miri) { 4 } else { 16 };
/// Longer than any run takes.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn no_chain_is_lost_in_a_split_ring_with_flags() {
    run_all(RingFeatures::default());
}

#[test]
fn no_chain_is_lost_in_a_split_ring_with_event_indices() {
    run_all(RingFeatures::NONE.with_event_idx(true));
}

#[test]
#[cfg_attr(
    miri,
    ignore = "Miri does not follow atomic accesses of different sizes"
)]
fn no_chain_is_lost_in_a_packed_ring_with_flags() {
    run_all(RingFeatures::NONE.with_packed(true));
}

#[test]
#[cfg_attr(
    miri,
    ignore = "Miri does not follow atomic accesses of different sizes"
)]
fn no_chain_is_lost_in_a_packed_ring_with_event_indices() {
    run_all(RingFeatures::NONE.with_packed(true).with_event_idx(true));
}

fn run_all(features: RingFeatures) {
    run(features);
    run(features.with_indirect(true).with_in_order(true));
}

fn run(features: RingFeatures) {
    let arena = Arena::new();
    let allocator = Arc::clone(&arena) as Arc<dyn DmaAllocator>;
    // A packed ring of an odd size wraps in the middle of chains.
    let size = if features.packed { SIZE - 1 } else { SIZE };
    let config = QueueConfig {
        size,
        align: 1,
        features,
    };
    let queue = Queue::new(&config, &allocator, &DeviceHold::new()).expect("a queue");
    let device = DeviceConfig {
        size,
        features,
        addresses: queue.addresses(),
        state: RingState::start(features),
        chain_max: Message::MAX_SEGMENTS,
        in_flight_max: size,
    };
    let device = DeviceQueue::new(&device, Shared::new(&arena)).expect("a device side");
    let spare = (0..size).map(|_| Message::new(&allocator)).collect();
    let (kick, interrupt) = (Arc::<Bell>::default(), Arc::<Bell>::default());
    let (ended, endings) = mpsc::channel();
    let threads = [
        thread::spawn({
            let (ending, kick, interrupt) = (
                Ending(ended.clone()),
                Arc::clone(&kick),
                Arc::clone(&interrupt),
            );
            move || {
                let _ending = ending;
                drive(queue, spare, &kick, &interrupt);
            }
        }),
        thread::spawn({
            let ending = Ending(ended);
            move || {
                let _ending = ending;
                serve(device, &kick, &interrupt);
            }
        }),
    ];
    for _ in &threads {
        let end = endings.recv_timeout(PATIENCE);
        let well = end.expect("both sides sleep, and nobody wakes the other");
        assert!(well, "a side has failed");
    }
    for thread in threads {
        thread.join().expect("it ended well");
    }
}

/// The driver: sends every number once and gets each back once.
fn drive(mut queue: Queue<Message>, mut spare: Vec<Message>, kick: &Bell, interrupt: &Bell) {
    let mut seen = vec![false; CHAINS];
    let (mut sent, mut back) = (0, 0);
    queue.disable_interrupts();
    while back < CHAINS {
        let before = sent + back;
        let batch = 1 + sent % 7;
        while sent < CHAINS
            && sent + back < before + batch
            && let Some(message) = spare.pop()
        {
            match queue.add(message.with(sent)) {
                Ok(_) => sent += 1,
                Err(refused) => {
                    assert_eq!(refused.reason, AddReason::Full);
                    spare.push(refused.chain);
                    break;
                }
            }
        }
        if queue.publish() == Notify::Needed {
            kick.ring();
        }
        while let Some(used) = queue.take().expect("the device is honest") {
            let number = used.chain.number();
            assert_eq!((used.written, used.chain.reply()), (8, answer(number)));
            assert!(!seen[number], "chain {number} comes back twice");
            seen[number] = true;
            back += 1;
            spare.push(used.chain);
        }
        if sent + back == before {
            if queue.enable_interrupts() == Pending::No {
                interrupt.wait();
            }
            queue.disable_interrupts();
        }
    }
    assert!(seen.into_iter().all(|seen| seen));
}

/// The device: answers every number, in batches and, unless it must not, out of order.
fn serve(mut queue: DeviceQueue<Shared>, kick: &Bell, interrupt: &Bell) {
    let mut served = 0;
    let mut batch: Vec<device::Chain> = Vec::new();
    queue
        .disable_notifications()
        .expect("the ring can be reached");
    while served < CHAINS {
        while batch.len() < 1 + served % 5
            && let Some(chain) = queue.pop().expect("the driver is honest")
        {
            let mut bytes = [0; 8];
            assert_eq!(queue.pull(&chain, 0, &mut bytes), Ok(8));
            let number = usize::from_le_bytes(bytes);
            assert_eq!(
                chain.readable_len(),
                if number.is_multiple_of(2) { 8 } else { 12 }
            );
            assert_eq!(queue.push(&chain, 0, &answer(number).to_le_bytes()), Ok(8));
            batch.push(chain);
        }
        if batch.is_empty() {
            if queue.enable_notifications() == Ok(Pending::No) {
                kick.wait();
            }
            queue
                .disable_notifications()
                .expect("the ring can be reached");
            continue;
        }
        served += batch.len();
        for chain in batch.drain(..).rev() {
            queue.complete(chain, 8).expect("the chain is the queue's");
        }
        if queue.notify() {
            interrupt.ring();
        }
    }
}

fn answer(number: usize) -> u64 {
    !(number as u64)
}

/// A number, after every other one a few bytes more, and room for the answer.
struct Message {
    number: DmaBuffer,
    more: DmaBuffer,
    reply: DmaBuffer,
}

impl Message {
    fn new(allocator: &Arc<dyn DmaAllocator>) -> Self {
        let buffer = |len| DmaBuffer::new(allocator, len).expect("the arena is large enough");
        Self {
            number: buffer(8),
            more: buffer(4),
            reply: buffer(8),
        }
    }

    fn with(mut self, number: usize) -> Self {
        self.number.copy_from_slice(&number.to_le_bytes());
        self.reply.fill(0);
        self
    }

    fn number(&self) -> usize {
        usize::from_le_bytes(self.number[..].try_into().expect("8 bytes"))
    }

    fn reply(&self) -> u64 {
        u64::from_le_bytes(self.reply[..].try_into().expect("8 bytes"))
    }
}

// SAFETY: the segments are whole buffers that the value owns, each once.
unsafe impl Chain for Message {
    const MAX_SEGMENTS: u16 = 3;

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        let count = 1 + self.number() % 2;
        [Segment::of(&self.number), Segment::of(&self.more)]
            .into_iter()
            .take(count)
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        std::iter::once(Segment::of(&self.reply))
    }
}

/// What one side wakes the other with. It rings until it is heard.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().expect("nobody panics here") = true;
        self.heard.notify_one();
    }

    fn wait(&self) {
        let rung = self.rung.lock().expect("nobody panics here");
        let rung = self.heard.wait_while(rung, |rung| !*rung);
        *rung.expect("nobody panics here") = false;
    }
}

/// Tells how a thread has ended: well or not.
struct Ending(Sender<bool>);

impl Drop for Ending {
    fn drop(&mut self) {
        // The test may have given up.
        let _gone = self.0.send(!thread::panicking());
    }
}

/// Memory that is handed out and never taken back, so that the device side can map it once.
struct Arena {
    ptr: NonNull<u8>,
    next: Mutex<usize>,
}

// SAFETY: the memory belongs to the value; nothing is bound to a thread.
unsafe impl Send for Arena {}
// SAFETY: each part is handed out once, and the arena itself reads and writes none.
unsafe impl Sync for Arena {}

impl Arena {
    const LAYOUT: Layout = match Layout::from_size_align(0x8000, 0x1000) {
        Ok(layout) => layout,
        Err(_) => panic!("a good layout"),
    };
    /// Where the device finds it: not where the processor does.
    const ADDR: u64 = 0x4000_0000;

    fn new() -> Arc<Self> {
        // SAFETY: the size is not zero.
        let ptr = NonNull::new(unsafe { alloc_zeroed(Self::LAYOUT) }).expect("there is memory");
        Arc::new(Self {
            ptr,
            next: Mutex::new(0),
        })
    }
}

// SAFETY: every block is a zeroed part of the arena of its own, which lives as long.
unsafe impl DmaAllocator for Arena {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        let mut next = self.next.lock().expect("nobody panics here");
        let start = next.next_multiple_of(layout.align());
        let end = start + layout.size();
        if end > Self::LAYOUT.size() {
            return Err(DmaError::OutOfMemory);
        }
        *next = end;
        // SAFETY: the block lies inside the arena.
        let ptr = unsafe { self.ptr.add(start) };
        Ok(DmaBlock {
            ptr,
            addr: DmaAddr(Self::ADDR + start as u64),
            layout,
        })
    }

    unsafe fn deallocate(&self, _block: DmaBlock) {}
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and dropped once.
        unsafe { dealloc(self.ptr.as_ptr(), Self::LAYOUT) };
    }
}

/// The arena, as the device side reaches it.
struct Shared {
    direct: Direct,
    _arena: Arc<Arena>,
}

impl Shared {
    fn new(arena: &Arc<Arena>) -> Self {
        let region = Region {
            addr: DmaAddr(Arena::ADDR),
            ptr: arena.ptr,
            len: Arena::LAYOUT.size(),
        };
        // SAFETY: the arena is kept. Its buffers belong to the driver side, which lends them by its
        // ring.
        let direct = unsafe { Direct::new(vec![region]) }.expect("one region overlaps with none");
        Self {
            direct,
            _arena: Arc::clone(arena),
        }
    }
}

// SAFETY: the pieces are those of the memory inside, which the value keeps alive.
unsafe impl Memory for Shared {
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Piece, Fault> {
        self.direct.translate(addr, len, access)
    }
}
