//! A driver of a disk in user space: `vhost_vdpa_disk /dev/vhost-vdpa-0 BLOCKS`. It reads the first
//! so many blocks of 4096 bytes, which must be all, writes each to standard output, and then back to
//! the disk with all bits turned. Runs in the Linux guest.

#![deny(unsafe_code)]

use std::alloc::Layout;
use std::env;
use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use vhost::vdpa::VhostVdpa;
use vhost::vhost_kern::vdpa::VhostKernVdpa;
use vhost::{VhostBackend, VringConfigData};
use virtio::DeviceStatus;
use virtio::F;
use virtq::{
    Arena, DeviceHold, DmaAddr, DmaAllocator, DmaBlock, DmaBuffer, DmaError, Exchange, Notify,
    Queue, QueueConfig, Readable, RingFeatures, SharedMemory, Writable,
};
use vm_memory::mmap::MmapRegion;
use vm_memory::{FileOffset, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Where the device finds this program's memory.
const BASE: u64 = 0x4000_0000;
const MEMORY: usize = 1 << 20;
const QUEUE_SIZE: u16 = 16;
const BLOCK: usize = 4096;
const SECTORS: u64 = 8;
const BLK: u32 = 2;
const READ: u32 = 0;
const WRITE: u32 = 1;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vhost_vdpa_disk: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let mut words = env::args().skip(1);
    let (Some(path), Some(blocks)) = (words.next(), words.next()) else {
        return Err("which device, and how many blocks?".into());
    };
    let blocks: u64 = blocks.parse()?;
    let memory = Mapped::new()?;
    let mut disk = Disk::start(&path, &memory)?;
    for block in 0..blocks {
        let mut data = disk.read(block)?;
        io::stdout().write_all(&data)?;
        for byte in &mut data {
            *byte = !*byte;
        }
        disk.write(block, &data)?;
    }
    // Behind the end, and of no kind (VIRTIO 1.2, 5.2.6).
    for (kind, block, expected) in [
        (READ, blocks, 1),
        (WRITE, u64::MAX / SECTORS, 1),
        (99, 0, 2),
    ] {
        let (_, status) = disk.exchange(kind, block, &[0; BLOCK], BLOCK)?;
        if status != expected {
            return Err(format!("request {kind} of block {block}: status {status}").into());
        }
    }
    // Who reads the process's maps sees them go.
    eprintln!("mapped");
    io::stdin().read_line(&mut String::new())?;
    disk.device.dma_unmap(BASE, MEMORY as u64)?;
    eprintln!("unmapped");
    io::stdin().read_line(&mut String::new())?;
    disk.device.set_status(0)?;
    disk.hold.release();
    Ok(())
}

/// A disk with a driver.
struct Disk {
    device: VhostKernVdpa<Arc<GuestMemoryMmap>>,
    queue: Queue<Exchange>,
    dma: Arc<dyn DmaAllocator>,
    hold: Arc<DeviceHold>,
    kick: EventFd,
    call: EventFd,
}

impl Disk {
    /// Finds the device and starts it (VIRTIO 1.2, 3.1.1).
    fn start(path: &str, memory: &Arc<Mapped>) -> Outcome<Self> {
        let device = VhostKernVdpa::new(path, Arc::new(GuestMemoryMmap::new()))?;
        if device.get_device_id()? != BLK {
            return Err("no disk".into());
        }
        device.set_owner()?;
        device.set_status(0)?;
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        device.set_status(status.bits())?;
        let wanted = F::VERSION_1 | F::ACCESS_PLATFORM | F::INDIRECT_DESC;
        let features = device.get_features()? & wanted.bits().to_ne() as u64;
        device.set_features(features)?;
        status |= DeviceStatus::FEATURES_OK;
        device.set_status(status.bits())?;

        let source: Arc<dyn DmaAllocator> = Arc::clone(memory) as _;
        let shared = SharedMemory::new(&source, MEMORY)?;
        let dma: Arc<dyn DmaAllocator> = Arena::new(shared, DmaAddr(BASE))?;
        let hold = DeviceHold::new();
        let config = QueueConfig {
            size: QUEUE_SIZE,
            align: BLOCK,
            features: RingFeatures::NONE.with_indirect(true),
        };
        let queue = Queue::new(&config, &dma, &hold)?;
        device.dma_map(BASE, MEMORY as u64, memory.0.as_ptr(), false)?;
        let (kick, call) = (EventFd::new(0)?, EventFd::new(0)?);
        let addresses = queue.addresses();
        device.set_vring_num(0, QUEUE_SIZE)?;
        device.set_vring_addr(
            0,
            &VringConfigData {
                queue_max_size: QUEUE_SIZE,
                queue_size: QUEUE_SIZE,
                flags: 0,
                desc_table_addr: addresses.descriptor.0,
                used_ring_addr: addresses.device.0,
                avail_ring_addr: addresses.driver.0,
                log_addr: None,
            },
        )?;
        device.set_vring_base(0, 0)?;
        device.set_vring_call(0, &call)?;
        device.set_vring_kick(0, &kick)?;
        device.set_vring_enable(0, true)?;
        status |= DeviceStatus::DRIVER_OK;
        device.set_status(status.bits())?;
        Ok(Self {
            device,
            queue,
            dma,
            hold,
            kick,
            call,
        })
    }

    fn read(&mut self, block: u64) -> Outcome<Vec<u8>> {
        match self.exchange(READ, block, &[], BLOCK)? {
            (answer, 0) => Ok(answer[..BLOCK].to_vec()),
            (_, status) => Err(format!("reading block {block}: status {status}").into()),
        }
    }

    fn write(&mut self, block: u64, data: &[u8]) -> Outcome<()> {
        match self.exchange(WRITE, block, data, 0)? {
            (_, 0) => Ok(()),
            (_, status) => Err(format!("writing block {block}: status {status}").into()),
        }
    }

    /// A request of a kind, with data, and room for so many bytes of an answer before the status.
    fn exchange(
        &mut self,
        kind: u32,
        block: u64,
        data: &[u8],
        room: usize,
    ) -> Outcome<(DmaBuffer, u8)> {
        let mut request = DmaBuffer::new(&self.dma, 16 + data.len())?;
        request[..4].copy_from_slice(&kind.to_le_bytes());
        request[8..16].copy_from_slice(&(block * SECTORS).to_le_bytes());
        request[16..].copy_from_slice(data);
        let mut answer = DmaBuffer::new(&self.dma, room + 1)?;
        answer[room] = 0xff;
        let len = u32::try_from(request.len())?;
        let exchange = Exchange {
            request: Some(Readable {
                buffer: request,
                len,
            }),
            answer: Some(Writable(answer)),
        };
        self.queue.add(exchange).map_err(|refused| refused.reason)?;
        if self.queue.publish() == Notify::Needed {
            self.kick.write(1)?;
        }
        loop {
            if let Some(used) = self.queue.take()? {
                let answer = used.chain.answer.ok_or("the chain has lost its answer")?;
                let status = answer.0[room];
                return Ok((answer.0, status));
            }
            self.call.read()?;
        }
    }
}

/// Memory in a file, so that it can be shared with the device's program.
struct Mapped(MmapRegion);

impl Mapped {
    fn new() -> Outcome<Arc<Self>> {
        let file = File::from(memfd_create("vhost-vdpa-disk", MemfdFlags::CLOEXEC)?);
        file.set_len(MEMORY as u64)?;
        let region = MmapRegion::from_file(FileOffset::new(file, 0), MEMORY)?;
        Ok(Arc::new(Self(region)))
    }
}

#[expect(unsafe_code, reason = "a driver's memory is shared with its device")]
// SAFETY: the only block is the whole of the mapping, which is new and zeroed, is asked for once,
// and lives as long as the allocator, which whoever has the block keeps alive. Its address is the
// processor's; the device's is that of the arena on it.
unsafe impl DmaAllocator for Mapped {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        if layout.size() > MEMORY {
            return Err(DmaError::OutOfMemory);
        }
        let ptr = NonNull::new(self.0.as_ptr()).ok_or(DmaError::OutOfMemory)?;
        let addr = DmaAddr(ptr.addr().get() as u64);
        Ok(DmaBlock { ptr, addr, layout })
    }

    unsafe fn deallocate(&self, _block: DmaBlock) {}
}
