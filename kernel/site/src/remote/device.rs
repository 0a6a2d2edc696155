//! Requests of a virtio disk (VIRTIO 1.2, 5.2.6) as requests to an NBD server.

use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use nbd_client::{
    Client, Command, Durability, Error, Export, Holes, RequestError, Store, TakenBack,
};
use spin::Mutex;
use vdpa::Features;
use vdpa::config::blk;
use vdpa_vduse::protocol::{DeviceConfig, QueueSetup};
use vdpa_vduse::{Job, Task, TaskDevice, TaskError, Turn};
use virtio::blk::{F, S, T};
use virtq::Event;

/// How many requests are under way at once: as many as a task gets.
pub(super) const REQUESTS: usize = 32;
const QUEUE: u16 = 0;
const QUEUE_SIZE: u16 = 128;
const SECTOR: u64 = 512;
/// The length of `virtio_blk_req` up to its data.
const HEADER: usize = 16;
/// A range to discard, or to fill with zeroes.
const RANGE: usize = 16;
const ID_LEN: usize = 20;
/// The most sectors of such a range: its bytes fit in 32 bits.
const RANGE_SECTORS: u32 = u32::MAX / 512;
/// The flag of a range whose room may be given back.
const UNMAP: u32 = 1;

/// The disk.
pub(super) struct NbdDevice {
    client: Client<Job>,
    task: Option<Arc<Task>>,
    id: String,
    runs: bool,
    durability: Durability,
}

impl NbdDevice {
    pub(super) fn new(client: Client<Job>) -> Self {
        Self {
            client,
            task: None,
            id: String::new(),
            runs: false,
            durability: Durability::Cached,
        }
    }

    /// The device has been made.
    pub(super) fn begin(&mut self, task: Arc<Task>, id: &str) {
        self.task = Some(task);
        self.id = id.into();
    }

    pub(super) fn client(&mut self) -> &mut Client<Job> {
        &mut self.client
    }

    pub(super) fn export(&self) -> Option<Export> {
        self.client.export()
    }

    /// Takes what the server has sent.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<(), Error> {
        let received = self.client.receive(bytes, now, &mut jobs(&self.task));
        self.take();
        received
    }

    /// What is to be sent.
    pub(super) fn transmit(&mut self, room: &mut [u8], now: Duration) -> Result<usize, Error> {
        self.client.transmit(room, now, &mut jobs(&self.task))
    }

    /// The connection has ended.
    pub(super) fn disconnected(&mut self, error: Option<Error>) {
        self.client.disconnected(error, &mut jobs(&self.task));
        self.take();
    }

    /// Takes requests, and shows the driver what is done.
    fn take(&mut self) {
        let Some(task) = self.task.clone() else {
            return;
        };
        // A driver that takes its queue back meanwhile says so by a message.
        while self.runs && self.client.has_room() {
            let Ok(Some(job)) = task.take(QUEUE) else {
                break;
            };
            self.start_job(&task, job);
        }
        let _ = task.flush(QUEUE);
    }

    fn start_job(&mut self, task: &Task, job: Job) {
        let mut jobs = Jobs(Some(task));
        match self.command(task, job) {
            Ok(Some(command)) => self.client.submit(job, command, &mut jobs),
            Ok(None) => jobs.finish(job, Ok(())),
            Err(error) => jobs.finish(job, Err(error)),
        }
    }

    /// What a request asks the server for; `None`, if it has been answered here.
    fn command(&self, task: &Task, job: Job) -> Result<Option<Command>, RequestError> {
        let mut header = [0; HEADER];
        let read = task.read(job, 0, &mut header);
        if read != Ok(HEADER) {
            return Err(RequestError::Io);
        }
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let offset = sector.checked_mul(SECTOR).ok_or(RequestError::Io)?;
        let readable = job.readable() - HEADER as u64;
        let durability = self.durability;
        let whole = |len: u64| match len % SECTOR {
            0 => Ok(len),
            _ => Err(RequestError::Io),
        };
        let kind = T::try_from(u32::from_le_bytes([t0, t1, t2, t3]));
        Ok(Some(match kind {
            Ok(T::In) => Command::Read {
                offset,
                len: whole(job.writable().saturating_sub(1))?,
            },
            Ok(T::Out) => Command::Write {
                offset,
                len: whole(readable)?,
                durability,
            },
            Ok(T::Flush) if sector == 0 => Command::Flush,
            Ok(T::Discard) => {
                let (offset, len, flags) = range(task, job)?;
                if flags != 0 {
                    return Err(RequestError::Unsupported);
                }
                Command::Trim {
                    offset,
                    len,
                    durability,
                }
            }
            Ok(T::WriteZeroes) => {
                let (offset, len, flags) = range(task, job)?;
                let holes = match flags {
                    0 => Holes::Forbidden,
                    UNMAP => Holes::Allowed,
                    _ => return Err(RequestError::Unsupported),
                };
                Command::WriteZeroes {
                    offset,
                    len,
                    durability,
                    holes,
                }
            }
            Ok(T::GetId) if sector == 0 => {
                let mut id = [0; ID_LEN];
                let name = self.id.as_bytes();
                let count = name.len().min(ID_LEN);
                id[..count].copy_from_slice(&name[..count]);
                let room = job.writable().saturating_sub(1).min(ID_LEN as u64);
                let written = task.write(job, 0, &id[..room as usize]);
                written.map_err(|_| RequestError::Io)?;
                return Ok(None);
            }
            Ok(T::Flush | T::GetId) => return Err(RequestError::Io),
            _ => return Err(RequestError::Unsupported),
        }))
    }
}

/// The one range of a request: position and length in bytes, and flags.
fn range(task: &Task, job: Job) -> Result<(u64, u64, u32), RequestError> {
    let mut bytes = [0; RANGE];
    let read = task.read(job, HEADER as u64, &mut bytes);
    if job.readable() != (HEADER + RANGE) as u64 || read != Ok(RANGE) {
        return Err(RequestError::Io);
    }
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let sector = u64::from(word(0)) | u64::from(word(4)) << 32;
    let offset = sector.checked_mul(SECTOR).ok_or(RequestError::Io)?;
    let sectors = Some(word(8)).filter(|sectors| *sectors <= RANGE_SECTORS);
    let len = u64::from(sectors.ok_or(RequestError::Io)?) * SECTOR;
    Ok((offset, len, word(12)))
}

/// The requests that the task has.
struct Jobs<'t>(Option<&'t Task>);

fn jobs(task: &Option<Arc<Task>>) -> Jobs<'_> {
    Jobs(task.as_deref())
}

impl Store<Job> for Jobs<'_> {
    fn fetch(&mut self, job: Job, offset: u64, bytes: &mut [u8]) -> Result<(), TakenBack> {
        let task = self.0.ok_or(TakenBack)?;
        let copied = task.read(job, HEADER as u64 + offset, bytes);
        if copied == Ok(bytes.len()) {
            Ok(())
        } else {
            Err(TakenBack)
        }
    }

    fn put(&mut self, job: Job, offset: u64, bytes: &[u8]) {
        if let Some(task) = self.0 {
            // Nobody waits for what was taken back.
            let _ = task.write(job, offset, bytes);
        }
    }

    /// The last byte that can be written is the status.
    fn finish(&mut self, job: Job, outcome: Result<(), RequestError>) {
        let Some(task) = self.0 else { return };
        let status = match outcome {
            Ok(()) => S::Ok,
            Err(RequestError::Unsupported) => S::Unsupp,
            Err(_) => S::Ioerr,
        };
        if let Some(place) = job.writable().checked_sub(1) {
            let _ = task.write(job, place, &[status.into()]);
        }
        let _ = task.complete(job);
    }
}

/// The disk as its task serves it; the event says that there may be something to send.
pub(super) struct Served<'d>(pub(super) &'d Mutex<NbdDevice>, pub(super) &'d Event);

impl TaskDevice for Served<'_> {
    fn start(&mut self, features: Features) {
        let mut device = self.0.lock();
        device.runs = true;
        // VIRTIO 1.2, 5.2.6.2: whoever cannot flush relies on every write.
        device.durability = if features.contains(F::FLUSH) {
            Durability::Cached
        } else {
            Durability::Durable
        };
    }

    fn stop(&mut self) {
        let mut device = self.0.lock();
        device.runs = false;
        device.client.abandon();
        drop(device);
        self.1.raise();
    }

    fn let_go(&mut self) {
        self.0.lock().client.abandon();
        self.1.raise();
    }

    fn serve(&mut self, _task: &Task) -> Result<Turn, TaskError> {
        self.0.lock().take();
        self.1.raise();
        Ok(Turn::Idle)
    }
}

/// What the device is made from.
pub(super) fn config(name: &str, export: Option<Export>) -> DeviceConfig {
    let mut space = [0; blk::SIZE];
    let mut kinds = F::SEG_MAX;
    if let Some(export) = export {
        let block = u64::from(export.blocks().min).max(SECTOR);
        let size = export.size() - export.size() % block;
        blk::CAPACITY.put(&mut space, size / SECTOR);
        blk::BLK_SIZE.put(&mut space, u32::try_from(block).unwrap_or(u32::MAX));
        kinds |= F::BLK_SIZE;
        let may = [
            (export.is_read_only(), F::RO),
            (export.has_flush(), F::FLUSH),
            (export.has_trim() && !export.is_read_only(), F::DISCARD),
            (
                export.has_write_zeroes() && !export.is_read_only(),
                F::WRITE_ZEROES,
            ),
        ];
        for (_, feature) in may.into_iter().filter(|(has, _)| *has) {
            kinds |= feature;
        }
        let sectors = u32::try_from(block / SECTOR).unwrap_or(1);
        let most = RANGE_SECTORS - RANGE_SECTORS % sectors;
        if kinds.contains(F::DISCARD) {
            blk::MAX_DISCARD_SECTORS.put(&mut space, most);
            blk::MAX_DISCARD_SEG.put(&mut space, 1);
            blk::DISCARD_SECTOR_ALIGNMENT.put(&mut space, sectors);
        }
        if kinds.contains(F::WRITE_ZEROES) {
            blk::MAX_WRITE_ZEROES_SECTORS.put(&mut space, most);
            blk::MAX_WRITE_ZEROES_SEG.put(&mut space, 1);
            blk::WRITE_ZEROES_MAY_UNMAP.put(&mut space, 1);
        }
    }
    blk::SEG_MAX.put(&mut space, u32::from(QUEUE_SIZE) - 2);
    let ring = virtio::F::INDIRECT_DESC | virtio::F::EVENT_IDX | virtio::F::RING_PACKED;
    let base = virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM;
    let features = Features::from(kinds) | ring.into() | base.into();
    DeviceConfig {
        name: name.into(),
        vendor_id: 0,
        device_id: u8::from(virtio::Id::Block).into(),
        features: features.bits() as u64,
        queues: 1,
        queue_align: 1,
        groups: 1,
        address_spaces: 1,
        config: space.into(),
    }
}

/// Says what the queue can be.
pub(super) fn set_up(task: &Task) -> Result<(), TaskError> {
    task.set_up_queue(QueueSetup {
        index: QUEUE.into(),
        size_max: QUEUE_SIZE,
        group: 0,
    })
}
