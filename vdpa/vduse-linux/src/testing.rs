//! A kernel that is played by a test, and may lie; and memory that a driver shares with a device.

use std::alloc::Layout;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::mm::ProtFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vduse_protocol::{IotlbEntry, Permission, QueueInfo, RawState, ioctl};
use virtq::device::{Chain, DeviceQueue};
use virtq::{
    DeviceHold, DmaAddr, DmaAllocator, DmaBlock, DmaBuffer, DmaError, Exchange, Queue, QueueConfig,
    Readable, RingFeatures, Writable,
};

use crate::calls::Calls;
use crate::device_file::DeviceFile;
use crate::error::QueueError;
use crate::mapping::Mapping;
use crate::memory::QueueMemory;
use crate::service::Service;

/// Where the device finds the driver's memory.
pub(crate) const BASE: u64 = 0x1_0000;
pub(crate) const MEMORY: u64 = 1 << 20;
pub(crate) const SIZE: u16 = 8;

const VERSION_1: u64 = 1 << 32;
const PACKED: u64 = 1 << 34;
const INDIRECT: u64 = 1 << 28;

/// The kernel's side of a device.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) memory: Arc<DriverMemory>,
    pub(crate) state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) features: u64,
    pub(crate) queues: Vec<QueueInfo>,
    /// What it says of the driver's memory.
    pub(crate) entry: IotlbEntry,
    /// Whether the driver has started the device.
    pub(crate) started: bool,
    /// The calls, by name.
    pub(crate) calls: Vec<&'static str>,
    pub(crate) interrupts: u32,
}

impl Kernel {
    pub(crate) fn new(packed: bool) -> Arc<Self> {
        let format = if packed { PACKED } else { 0 };
        let entry = IotlbEntry {
            offset: 0,
            start: BASE,
            last: BASE + MEMORY - 1,
            permission: Some(Permission::ReadWrite),
            address_space: 0,
        };
        Arc::new(Self {
            memory: DriverMemory::new(),
            state: Mutex::new(State {
                features: VERSION_1 | format,
                queues: Vec::new(),
                entry,
                started: false,
                calls: Vec::new(),
                interrupts: 0,
            }),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Its device, as a program has it, and the other end of the messages.
    pub(crate) fn device(self: &Arc<Self>) -> (DeviceFile, OwnedFd) {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        // As the device's file is.
        rustix::io::ioctl_fionbio(&theirs, true).unwrap();
        (DeviceFile::with(theirs, Arc::clone(self) as _), ours)
    }

    /// A driver sets the next queue up.
    pub(crate) fn drive(&self, indirect: bool) -> Driver {
        let mut state = self.lock();
        let packed = state.features & PACKED != 0;
        state.features |= if indirect { INDIRECT } else { 0 };
        let driver = Driver::new(&self.memory, packed, indirect);
        let addresses = driver.queue.addresses();
        let index = state.queues.len() as u32;
        state.queues.push(QueueInfo {
            index,
            size: SIZE.into(),
            descriptor: addresses.descriptor.0,
            driver: addresses.driver.0,
            device: addresses.device.0,
            state: if packed {
                RawState::of_packed(vduse_protocol::PackedState {
                    avail_index: 0,
                    avail_wrap: true,
                    used_index: 0,
                    used_wrap: true,
                })
            } else {
                RawState::of_split(0)
            },
            ready: true,
        });
        driver
    }
}

impl Calls for Kernel {
    fn call(&self, _file: BorrowedFd<'_>, number: u32, argument: &mut [u8]) -> io::Result<()> {
        let mut state = self.lock();
        let name = match number {
            ioctl::DEV_GET_FEATURES => {
                argument.copy_from_slice(&state.features.to_ne_bytes());
                "features"
            }
            ioctl::VQ_SETUP => "set up",
            ioctl::VQ_GET_INFO => {
                let index = u32::from_ne_bytes(argument[..4].try_into().unwrap());
                let info = state.queues.get(index as usize).ok_or(Errno::INVAL)?;
                argument.copy_from_slice(&info.encode());
                "info"
            }
            ioctl::VQ_SETUP_KICKFD => "kick",
            ioctl::VQ_INJECT_IRQ if state.started => {
                state.interrupts += 1;
                return Ok(());
            }
            ioctl::VQ_INJECT_IRQ => return Err(Errno::INVAL.into()),
            _ => return Err(Errno::NOTTY.into()),
        };
        state.calls.push(name);
        Ok(())
    }

    fn open(&self, _file: BorrowedFd<'_>, number: u32, argument: &mut [u8]) -> io::Result<OwnedFd> {
        let mut state = self.lock();
        // The first structure is for the first address space alone.
        let known = match state.entry.address_space {
            0 => ioctl::IOTLB_GET_FD,
            _ => ioctl::IOTLB_GET_FD2_LONG,
        };
        if number != known {
            return Err(Errno::NOTTY.into());
        }
        state.calls.push("memory");
        let answer = state.entry.encode(argument.len()).unwrap();
        argument.copy_from_slice(&answer);
        self.memory.file.as_fd().try_clone_to_owned()
    }
}

/// Memory of a driver in a file.
#[derive(Debug)]
pub(crate) struct DriverMemory {
    pub(crate) file: File,
    mapping: Mapping,
    next: AtomicU64,
    number: u32,
}

impl DriverMemory {
    fn new() -> Arc<Self> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let file = memfd_create(name(number), MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(file);
        file.set_len(MEMORY).unwrap();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let mapping = Mapping::new(&file, 0, MEMORY, access).unwrap();
        Arc::new(Self {
            file,
            mapping,
            next: AtomicU64::new(0),
            number,
        })
    }

    /// Writes a number where a driver would not.
    pub(crate) fn write(&self, address: u64, number: u16) {
        let bytes = number.to_le_bytes();
        self.file.write_all_at(&bytes, address - BASE).unwrap();
    }

    /// What the system calls it, unlike any other.
    pub(crate) fn name(&self) -> String {
        name(self.number)
    }
}

fn name(number: u32) -> String {
    format!("vduse-driver-{number}.")
}

#[expect(unsafe_code, reason = "a driver's memory is shared with its device")]
// SAFETY: a block is a part of the mapping that no other block is, lives as long as the allocator,
// which whoever has a block keeps alive, and is the same bytes for the device at its address.
unsafe impl DmaAllocator for DriverMemory {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        let size = layout.size().next_multiple_of(layout.align().max(64)) as u64;
        let align = layout.align().max(64) as u64;
        let take = |next: u64| Some(next.next_multiple_of(align) + size);
        let before = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let offset = before.unwrap().next_multiple_of(align);
        self.mapping
            .at(offset + size - 1)
            .ok_or(DmaError::OutOfMemory)?;
        let ptr = self.mapping.at(offset).ok_or(DmaError::OutOfMemory)?;
        let addr = DmaAddr(BASE + offset);
        Ok(DmaBlock { ptr, addr, layout })
    }

    unsafe fn deallocate(&self, _block: DmaBlock) {}
}

/// The driver of a queue, whose requests are numbers.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) queue: Queue<Exchange>,
    questions: Vec<DmaBuffer>,
    answers: Vec<DmaBuffer>,
    sent: u32,
    /// What has come back.
    pub(crate) answered: Vec<u32>,
    hold: Arc<DeviceHold>,
}

impl Driver {
    fn new(memory: &Arc<DriverMemory>, packed: bool, indirect: bool) -> Self {
        let dma: Arc<dyn DmaAllocator> = Arc::clone(memory) as _;
        let hold = DeviceHold::new();
        let features = RingFeatures::NONE
            .with_packed(packed)
            .with_indirect(indirect);
        let config = QueueConfig {
            size: SIZE,
            align: 1,
            features,
        };
        let buffer = || DmaBuffer::new(&dma, 64).unwrap();
        Self {
            queue: Queue::new(&config, &dma, &hold).unwrap(),
            questions: (0..SIZE).map(|_| buffer()).collect(),
            answers: (0..SIZE).map(|_| buffer()).collect(),
            sent: 0,
            answered: Vec::new(),
            hold,
        }
    }

    /// Sends a request, if there is room. Each third expects no answer, so that chains differ in
    /// length.
    pub(crate) fn send(&mut self) {
        let Some(mut question) = self.questions.pop() else {
            return;
        };
        question[..4].copy_from_slice(&self.sent.to_le_bytes());
        let answer = self.answers.pop_if(|_| !self.sent.is_multiple_of(3));
        let exchange = Exchange {
            request: Some(Readable {
                buffer: question,
                len: 4,
            }),
            answer: answer.map(Writable),
        };
        match self.queue.add(exchange) {
            Ok(_) => {
                self.sent += 1;
                let _ = self.queue.publish();
            }
            Err(refused) => self.keep(refused.chain),
        }
    }

    /// Takes what has come back, each with its answer.
    pub(crate) fn take(&mut self) {
        while let Some(used) = self.queue.take().unwrap() {
            let number = |buffer: &DmaBuffer| u32::from_le_bytes(buffer[..4].try_into().unwrap());
            let asked = number(&used.chain.request.as_ref().unwrap().buffer);
            match &used.chain.answer {
                Some(answer) => assert_eq!((number(&answer.0), used.written), (asked, 4)),
                None => assert_eq!(used.written, 0),
            }
            self.answered.push(asked);
            self.keep(used.chain);
        }
    }

    /// All that was sent has come back, once, in order.
    pub(crate) fn check(&self) {
        let all: Vec<u32> = (0..self.sent).collect();
        assert_eq!(self.answered, all);
    }

    fn keep(&mut self, chain: Exchange) {
        self.questions
            .extend(chain.request.map(|request| request.buffer));
        self.answers.extend(chain.answer.map(|answer| answer.0));
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.hold.release();
    }
}

/// Answers with the number that was asked.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    pub(crate) served: AtomicU32,
    /// Whether it panics over the next request.
    pub(crate) panics: AtomicBool,
    pub(crate) failures: Mutex<Vec<String>>,
}

impl Service for Echo {
    fn accepts(&self, features: u64) -> bool {
        features & VERSION_1 != 0
    }

    fn serve(&self, _queue: u16, ring: &DeviceQueue<QueueMemory>, chain: &Chain) -> u32 {
        self.served.fetch_add(1, Ordering::Relaxed);
        let mut number = [0; 4];
        let read = ring.pull(chain, 0, &mut number);
        assert_eq!(read, Ok(4));
        let panics = self.panics.load(Ordering::Relaxed);
        assert!(!panics, "as the test wants");
        let written = ring.push(chain, 0, &number).unwrap();
        written as u32
    }

    fn failed(&self, _queue: u16, error: &QueueError) {
        self.failures.lock().unwrap().push(error.to_string());
    }
}
