//! Both ends of a packed virtqueue in one program: a driver lends buffers, and a device in another
//! thread turns the letters around.
//!
//! It shows what a user of the crate brings along: memory that the device can reach ([`Pages`]) for
//! the driver, a translation of the driver's addresses ([`Window`]) for the device, and a way to
//! wake each other.
//!
//! Run it on the host: `cargo run -p virtq --example echo`.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::error::Error;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use virtq::device::{Access, DeviceConfig, DeviceQueue, DeviceTlb, Fault, Lookup, Mapped};
use virtq::{
    Arena, DeviceHold, DeviceMemory, DmaAddr, DmaAllocator, DmaBlock, DmaBuffer, DmaError,
    Exchange, Notify, Pending, Queue, QueueConfig, Readable, RingFeatures, RingState, SharedMemory,
    Writable,
};

/// Where the device finds the memory: any address will do, if both sides agree on it.
const BASE: DmaAddr = DmaAddr(0x10_0000);
const QUEUE_SIZE: u16 = 16;
const BUFFER: usize = 64;

/// Memory from the heap. A kernel takes it from its own allocator of physical pages.
struct Pages;

// SAFETY: the blocks are the heap's, zeroed and exclusive. Their address is the processor's, and
// the only device of this program reaches them through a translation instead.
unsafe impl DmaAllocator for Pages {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        if layout.size() == 0 {
            return Err(DmaError::BadSize);
        }
        // SAFETY: the size is not zero.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(DmaError::OutOfMemory)?;
        let addr = DmaAddr(ptr.addr().get() as u64);
        Ok(DmaBlock { ptr, addr, layout })
    }

    unsafe fn deallocate(&self, block: DmaBlock) {
        // SAFETY: the block is one of `allocate`, with its layout.
        unsafe { dealloc(block.ptr.as_ptr(), block.layout) };
    }
}

/// The device's view: one piece of memory at [`BASE`].
struct Window(DeviceMemory);

impl Lookup for Window {
    fn lookup(&self, _addr: DmaAddr, _access: Access) -> Result<Mapped, Fault> {
        // The cache in front checks whether the address lies inside.
        Ok(Mapped {
            first: BASE,
            last: DmaAddr(BASE.0 + self.0.len() - 1),
            readable: true,
            writable: true,
            memory: self.0.clone(),
            offset: 0,
        })
    }

    fn generation(&self) -> u64 {
        0 // Nothing is ever withdrawn.
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let pages: Arc<dyn DmaAllocator> = Arc::new(Pages);
    let memory = SharedMemory::new(&pages, 64 * 1024)?;
    let arena = Arena::new(memory.clone(), BASE)?;
    // SAFETY: the only device that the memory is mapped for serves the one queue that is made
    // below.
    let window = Window(unsafe { DeviceMemory::lent(&memory) });

    let features = RingFeatures::NONE.with_packed(true).with_event_idx(true);
    let dma: Arc<dyn DmaAllocator> = arena;
    let hold = DeviceHold::new();
    let config = QueueConfig {
        size: QUEUE_SIZE,
        align: 1,
        features,
    };
    let mut queue = Queue::new(&config, &dma, &hold)?;
    let mut device = DeviceQueue::new(
        &DeviceConfig {
            size: queue.size(),
            features,
            addresses: queue.addresses(),
            state: RingState::start(features),
            chain_max: 4,
            in_flight_max: QUEUE_SIZE,
        },
        DeviceTlb::new(window),
    )?;

    // What a kick and an interrupt are elsewhere.
    let (kick, kicks) = mpsc::channel::<()>();
    let (interrupt, interrupts) = mpsc::channel::<()>();
    let worker = thread::spawn(move || {
        while kicks.recv().is_ok() {
            serve(&mut device, &interrupt);
        }
        device.counters()
    });

    for word in ["desserts", "drawer", "redivider"] {
        let mut question = DmaBuffer::new(&dma, BUFFER)?;
        question[..word.len()].copy_from_slice(word.as_bytes());
        let answer = DmaBuffer::new(&dma, BUFFER)?;
        let exchange = Exchange {
            request: Some(Readable {
                buffer: question,
                len: u32::try_from(word.len())?,
            }),
            answer: Some(Writable(answer)),
        };
        queue.add(exchange).map_err(|refused| refused.reason)?;
        if queue.publish() == Notify::Needed {
            kick.send(())?;
        }
        let used = loop {
            if let Some(used) = queue.take()? {
                break used;
            }
            if queue.enable_interrupts() == Pending::No {
                interrupts.recv()?;
            }
        };
        let answer = used.chain.answer.ok_or("the chain comes back as it was")?;
        let written = &answer.0[..word.len()];
        println!("{word} -> {}", String::from_utf8_lossy(written));
    }

    // The device has stopped before its memory is freed: what a reset is elsewhere.
    drop(kick);
    let counters = worker.join().expect("the device does not panic");
    println!("{counters:?}");
    hold.release();
    Ok(())
}

/// One round of the device.
fn serve(device: &mut DeviceQueue<DeviceTlb<Window>>, interrupt: &mpsc::Sender<()>) {
    loop {
        while let Ok(Some(chain)) = device.pop() {
            let mut bytes = [0; BUFFER];
            let read = device.pull(&chain, 0, &mut bytes).unwrap_or(0);
            let text = &mut bytes[..read];
            text.reverse();
            let written = device.push(&chain, 0, text).unwrap_or(0);
            let written = u32::try_from(written).expect("no longer than the buffer");
            if device.complete(chain, written).is_err() {
                return;
            }
        }
        if device.notify() {
            // The driver may have gone.
            let _ = interrupt.send(());
        }
        match device.enable_notifications() {
            Ok(Pending::Yes) => {}
            Ok(Pending::No) | Err(_) => return,
        }
    }
}
