//! A disk in the memory of a task (VIRTIO 1.2, 5.2): all that a device needs besides the library.

use vdpa::Features;
use vdpa::blk::{Header, SECTOR_LEN, place};
use vdpa::config::blk;
use vdpa_vduse::protocol::{DeviceConfig, QueueSetup};
use vdpa_vduse::{Job, Task, TaskDevice, TaskError, Turn};
use virtio::blk::{F, S, T};

/// Requests in a turn, before others come.
const BUDGET: usize = 64;
const QUEUE_SIZE: u16 = 128;

/// The disk, in memory of whole sectors. Who owns it decides whether its contents outlive a task.
pub struct RamDisk<M> {
    memory: M,
    queues: u16,
}

impl<M: AsRef<[u8]> + AsMut<[u8]>> RamDisk<M> {
    /// A disk in this memory.
    pub fn new(memory: M, queues: u16) -> Self {
        Self { memory, queues }
    }

    /// What its device is made from.
    pub fn config(&self, name: &str) -> DeviceConfig {
        let mut space = [0; blk::SIZE];
        let sectors = self.memory.as_ref().len() as u64 / SECTOR_LEN;
        blk::CAPACITY.put(&mut space, sectors);
        blk::SEG_MAX.put(&mut space, u32::from(QUEUE_SIZE) - 2);
        blk::NUM_QUEUES.put(&mut space, self.queues);
        let ring = virtio::F::INDIRECT_DESC | virtio::F::EVENT_IDX | virtio::F::RING_PACKED;
        let base = virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM | virtio::F::IN_ORDER;
        let features = Features::from(F::SEG_MAX | F::FLUSH | F::MQ) | ring.into() | base.into();
        DeviceConfig {
            name: name.into(),
            vendor_id: 0,
            device_id: u8::from(virtio::Id::Block).into(),
            features: features.bits() as u64,
            queues: self.queues.into(),
            queue_align: 1,
            groups: 1,
            address_spaces: 1,
            config: space.into(),
        }
    }

    /// Says what the queues can be.
    pub fn set_up(&self, task: &Task) -> Result<(), TaskError> {
        let size_max = QUEUE_SIZE;
        let mut queues = 0..u32::from(self.queues);
        queues.try_for_each(|index| {
            task.set_up_queue(QueueSetup {
                index,
                size_max,
                group: 0,
            })
        })
    }

    /// Serves a request. The last byte that can be written is the status.
    pub fn answer(&mut self, task: &Task, job: Job) -> Result<(), TaskError> {
        if let Some(data) = job.writable().checked_sub(1) {
            let status = self.carry_out(task, job, data).unwrap_or(S::Ioerr);
            task.write(job, data, &[status.into()])?;
        }
        task.complete(job)
    }

    fn carry_out(&mut self, task: &Task, job: Job, data: u64) -> Result<S, TaskError> {
        let mut header = [0; Header::LEN];
        task.read(job, 0, &mut header)?;
        let header = Header::decode(&header);
        let sector = header.sector;
        Ok(match header.request_type() {
            Some(T::In) => match self.extent(sector, data) {
                Some(bytes) => {
                    task.write(job, 0, bytes)?;
                    S::Ok
                }
                None => S::Ioerr,
            },
            Some(T::Out) => {
                let len = job.readable().saturating_sub(Header::LEN as u64);
                match self.extent(sector, len) {
                    Some(bytes) => {
                        task.read(job, Header::LEN as u64, bytes)?;
                        S::Ok
                    }
                    None => S::Ioerr,
                }
            }
            Some(T::Flush) if sector == 0 => S::Ok,
            Some(T::Flush) => S::Ioerr,
            _ => S::Unsupp,
        })
    }

    /// Whole sectors that are on the disk.
    fn extent(&mut self, sector: u64, len: u64) -> Option<&mut [u8]> {
        let memory = self.memory.as_mut();
        let start = place(sector, len, memory.len() as u64)?;
        let start = usize::try_from(start).ok()?;
        memory
            .get_mut(start..)?
            .get_mut(..usize::try_from(len).ok()?)
    }
}

impl<M: AsRef<[u8]> + AsMut<[u8]> + Send> TaskDevice for RamDisk<M> {
    fn serve(&mut self, task: &Task) -> Result<Turn, TaskError> {
        for queue in 0..self.queues {
            for served in 0.. {
                if served == BUDGET {
                    task.flush(queue)?;
                    return Ok(Turn::More);
                }
                let Some(job) = task.take(queue)? else { break };
                self.answer(task, job)?;
            }
            task.flush(queue)?;
        }
        Ok(Turn::Idle)
    }
}
