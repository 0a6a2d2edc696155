//! The live-migration block: the registers at the start of BAR 4 that tell where each queue stands,
//! and log which pages the function writes.
//!
//! The function takes the state of a queue when the queue is enabled, and writes it once the queue
//! has stopped. It knows split queues only. QEMU's functions have their common configuration in
//! this place, so nothing is accessed unless the whole block lies where nothing else does.
//!
//! What the words mean, where the sources leave it open:
//!
//! - A network function fetches buffers ahead, so the available index of a queue may be beyond what
//!   it has used. It goes on at the *used* index: those buffers are fetched again, in the order in
//!   which they are used.
//! - A disk may complete its requests in any order, so no index tells which of those that it has
//!   begun are done. Its queues are stopped when there are none, and if there are some
//!   nevertheless, the state is not known.
//! - With [`StateLayout::Flat`] there is one index, where the function goes on. Nothing is there to
//!   compare it with.
//!
//! Source: Linux, `drivers/vdpa/ifcvf`; DPDK, `drivers/vdpa/ifc/base`.

use alloc::boxed::Box;

use vdpa::Features;
use vdpa::ops::{DirtyLog, OpError};
use virtq::DmaAddr;

use crate::demands::Shown;
use crate::states::StateRegisters;
use crate::window::Window;

use super::ids::StateLayout;

const BAR: u8 = 4;

/// What is logged: 0 nothing, 1 what this function writes.
const LOG_CONTROL: u64 = 0x00;
const LOG_OFF: u32 = 0;
const LOG_THIS_FUNCTION: u32 = 1;
/// Where the log starts, and where it ends; two words each, the lower one first.
const LOG_BASE: u64 = 0x10;
const LOG_END: u64 = 0x18;
/// How many queues or pairs of queues run; another queue's state in [`StateLayout::Flat`].
const RUNNING: u64 = 0x28;

/// The registers of the block.
pub(super) struct LiveMigration {
    window: Window,
    layout: StateLayout,
    is_net: bool,
    queues: u16,
}

impl LiveMigration {
    /// The block of a function, if `row` knows one and it lies where nothing else does.
    pub(super) fn find(function: &Shown<'_>, row: u64) -> Option<Box<dyn StateRegisters>> {
        let layout = StateLayout::of(row)?;
        let queues = u16::try_from(function.queues).ok()?;
        let last = layout.offset(queues.checked_sub(1)?);
        let window = function.registers_of_its_own(BAR, last.max(RUNNING) + 4)?;
        Some(Box::new(Self {
            window,
            layout,
            is_net: function.device_type == u32::from(u8::from(virtio::Id::Net)),
            queues,
        }))
    }

    /// The next available and the next used index.
    fn indices(&self, queue: u16) -> (u16, u16) {
        let at = self.layout.offset(queue);
        if self.layout == StateLayout::Flat {
            let index = self.window.read16(at);
            return (index, index);
        }
        let [a, b, c, d] = self.window.read32(at).to_le_bytes();
        (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
    }

    /// How many queues there are before the control queue, which comes after the pairs in use
    /// (VIRTIO 1.2, 5.1.2).
    fn data_queues(&self, features: Features) -> u16 {
        let pairs = virtio::net::F::MQ | virtio::net::F::RSS;
        if !features.contains(virtio::net::F::CTRL_VQ) {
            self.queues
        } else if features.intersection(pairs.into()) == Features::EMPTY {
            2
        } else {
            self.queues.saturating_sub(1)
        }
    }

    fn write64(&self, at: u64, value: u64) -> Result<(), OpError> {
        let words = [(at, value & 0xffff_ffff), (at + 4, value >> 32)];
        words.into_iter().try_for_each(|(at, word)| {
            let word = u32::try_from(word).expect("cut to 32 bits");
            self.window.write32(at, word);
            taken(self.window.read32(at) == word, OpError::Invalid)
        })
    }
}

impl StateRegisters for LiveMigration {
    fn is_drained(&self, queue: u16) -> bool {
        let (available, used) = self.indices(queue);
        self.is_net || available == used
    }

    fn position(&self, queue: u16, size: u16) -> Result<u16, OpError> {
        let (available, used) = self.indices(queue);
        let begun = available.wrapping_sub(used);
        let known = if self.is_net {
            begun <= size
        } else {
            begun == 0
        };
        taken(known, OpError::Broken).map(|()| used)
    }

    fn set_position(&self, queue: u16, avail_index: u16) -> Result<(), OpError> {
        let at = self.layout.offset(queue);
        if self.layout == StateLayout::Flat {
            self.window.write16(at, avail_index);
        } else {
            let index = u32::from(avail_index);
            self.window.write32(at, index << 16 | index);
        }
        // A queue that goes on must do so here. No source says that the word can be read before the
        // queue is enabled, and a new queue, which starts here by itself, shall not depend on it.
        let written = self.indices(queue) == (avail_index, avail_index);
        taken(written || avail_index == 0, OpError::Broken)
    }

    fn announce(&self, queues: &[u16], features: Features) {
        let count = match self.layout {
            StateLayout::Flat => return,
            StateLayout::PerQueue => queues.len(),
            StateLayout::PerPair => {
                let end = self.data_queues(features);
                let data = queues.iter().filter(|queue| **queue < end);
                data.count().div_ceil(2)
            }
        };
        let count = u32::try_from(count).expect("queues are counted in 16 bits");
        self.window.write32(RUNNING, count);
    }

    fn start_log(&self, log: DirtyLog) -> Result<(), OpError> {
        let DmaAddr(base) = log.base;
        let end = base.checked_add(log.len).ok_or(OpError::Invalid)?;
        self.stop_log()?;
        self.write64(LOG_BASE, base)?;
        self.write64(LOG_END, end)?;
        self.window.write32(LOG_CONTROL, LOG_THIS_FUNCTION);
        let on = self.window.read32(LOG_CONTROL) == LOG_THIS_FUNCTION;
        taken(on, OpError::Invalid)
    }

    fn stop_log(&self) -> Result<(), OpError> {
        self.window.write32(LOG_CONTROL, LOG_OFF);
        // Reading also waits until what the function has written to the log has arrived.
        taken(self.window.read32(LOG_CONTROL) == LOG_OFF, OpError::Timeout)
    }
}

/// Whether the function has done what it should.
fn taken(done: bool, otherwise: OpError) -> Result<(), OpError> {
    done.then_some(()).ok_or(otherwise)
}
