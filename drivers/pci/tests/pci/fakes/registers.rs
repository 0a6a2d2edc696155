//! The registers of a virtio function: the common configuration, with what it remembers.
//!
//! Source: VIRTIO 1.2, 4.1.4.3.

use vdpa::ops::QueueAddress;
use virtq::DmaAddr;

use super::virtio::{Plan, ring_reset, suspend};

const NO_VECTOR: u16 = 0xffff;
/// `ACKNOWLEDGE` and `DRIVER`.
const DRIVEN: u8 = 3;
const DRIVER_OK: u8 = 4;
const SUSPEND: u8 = 16;

/// How a device takes a reset.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Resetting {
    AtOnce,
    /// It reads as 0 after so many looks.
    After(u32),
    Never,
}

/// How a device takes `SUSPEND`, or `DRIVER_OK` while it is suspended (VIRTIO 1.4, 3.4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Suspending {
    Does,
    Never,
    /// It asks for a reset instead.
    Fails,
}

/// How the configuration changes while it is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    Stable,
    /// It changes during the next so many reads.
    Changes(u32),
}

pub struct State {
    pub status: u8,
    pub resetting: Resetting,
    looks: u32,
    pub resets: u32,
    pub suspending: Suspending,
    device_select: u32,
    driver_select: u32,
    pub driver_features: u128,
    /// Without these the device does not accept what the driver wants.
    pub insists_on: u128,
    /// How the configuration has changed.
    pub config_xor: u8,
    pub config_vector: u16,
    /// Vectors that the device does not take.
    pub refused: Option<u16>,
    select: u16,
    pub queues: Vec<Queue>,
    /// A queue that is reset never is done.
    pub queue_resets_hang: bool,
    pub(super) isr: u8,
    pub generation: Generation,
    pub(super) counter: u8,
    /// The widths in which the device's configuration was read.
    pub config_reads: Vec<u8>,
    pub(super) table: Vec<Entry>,
    pub violations: Vec<String>,
}

#[derive(Clone)]
pub struct Queue {
    max: u16,
    pub size: u16,
    pub vector: u16,
    /// The vector when the queue was enabled.
    interrupts_with: u16,
    pub enabled: bool,
    pub resetting: bool,
    address: [u32; 6],
    /// The lower half that was written last, whose upper half is due.
    half_written: Option<usize>,
}

impl Queue {
    fn new(max: u16) -> Self {
        let address = [0; 6];
        Self {
            max,
            size: max,
            vector: NO_VECTOR,
            interrupts_with: NO_VECTOR,
            enabled: false,
            resetting: false,
            address,
            half_written: None,
        }
    }

    /// The vector of its interrupts: later writes to the register come too late for a queue that is
    /// enabled.
    pub fn interrupt(&self) -> u16 {
        if self.enabled {
            self.interrupts_with
        } else {
            self.vector
        }
    }

    pub fn address(&self) -> QueueAddress {
        let part = |at: usize| {
            DmaAddr((u64::from(self.address[at + 1]) << 32) | u64::from(self.address[at]))
        };
        QueueAddress {
            descriptor: part(0),
            driver: part(2),
            device: part(4),
        }
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    pub(super) words: [u32; 4],
}

impl Entry {
    pub(super) const MASKED: Self = Self {
        words: [0, 0, 0, 1],
    };

    pub(super) fn is_masked(self) -> bool {
        self.words[3] & 1 != 0
    }
}

impl State {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            status: 0,
            resetting: Resetting::AtOnce,
            looks: 0,
            resets: 0,
            suspending: Suspending::Does,
            device_select: 0,
            driver_select: 0,
            driver_features: 0,
            insists_on: 0,
            config_xor: 0,
            config_vector: NO_VECTOR,
            refused: None,
            select: 0,
            queues: plan.queues.iter().map(|max| Queue::new(*max)).collect(),
            queue_resets_hang: false,
            isr: 0,
            generation: Generation::Stable,
            counter: 0,
            config_reads: Vec::new(),
            table: vec![Entry::MASKED; usize::from(plan.vectors)],
            violations: Vec::new(),
        }
    }

    fn reset(&mut self, plan: &Plan) {
        self.resets += 1;
        self.driver_features = 0;
        self.config_vector = NO_VECTOR;
        self.queues = plan.queues.iter().map(|max| Queue::new(*max)).collect();
        self.isr = 0;
    }

    fn vector(&self, value: u16, entries: u16) -> u16 {
        let refused = self.refused == Some(value) || value >= entries;
        if refused { NO_VECTOR } else { value }
    }

    fn queue(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(self.select))
    }

    fn expect_width(&mut self, offset: u64, width: u8, expected: u8) {
        if width != expected {
            self.violations
                .push(format!("{width} bytes at common {offset:#x}"));
        }
    }

    pub(super) fn read_common(&mut self, plan: &Plan, offset: u64, width: u8) -> u32 {
        self.expect_width(offset, width, natural_width(offset));
        let index = self.select;
        match offset {
            0x04 => match self.device_select {
                select @ 0..4 => plan.features().words()[select as usize],
                _ => 0,
            },
            0x10 => u32::from(self.config_vector),
            0x12 => u32::try_from(self.queues.len()).expect("few"),
            0x14 => u32::from(self.read_status(plan)),
            0x15 => u32::from(self.counter),
            0x1e => u32::from(index),
            0x18..=0x3a => {
                let Some(queue) = self.queue() else { return 0 };
                match offset {
                    0x18 => u32::from(queue.size),
                    0x1a => u32::from(queue.vector),
                    0x1c => u32::from(queue.enabled),
                    0x3a => u32::from(queue.resetting),
                    _ => queue.address[usize::try_from(offset - 0x20).expect("few") / 4],
                }
            }
            _ => 0,
        }
    }

    fn read_status(&mut self, plan: &Plan) -> u8 {
        if let Resetting::After(looks) = self.resetting
            && self.looks > 0
        {
            self.looks -= 1;
            if self.looks == 0 {
                self.status = 0;
                self.reset(plan);
                self.resetting = Resetting::After(looks);
            }
        }
        self.status
    }

    pub(super) fn write_common(&mut self, plan: &Plan, offset: u64, width: u8, value: u32) {
        self.expect_width(offset, width, natural_width(offset));
        let half = u16::try_from(value & 0xffff).expect("masked");
        if offset != 0x14 && self.status & DRIVEN != DRIVEN {
            let violation = format!(
                "VIRTIO 1.2, 3.1.1: common {offset:#x} written at status {}",
                self.status
            );
            self.violations.push(violation);
        }
        let enabled = self.queue().is_some_and(|queue| queue.enabled);
        if enabled && matches!(offset, 0x18..=0x1c | 0x20..=0x37) {
            let violation =
                format!("VIRTIO 1.2, 4.1.4.3.2: common {offset:#x} of a queue that is enabled");
            self.violations.push(violation);
        }
        match offset {
            0x00 => self.device_select = value,
            0x08 => self.driver_select = value,
            0x0c => {
                let select = self.driver_select;
                let shown = plan.features().words().get(select as usize).copied();
                if select >= 2 && shown.unwrap_or(0) == 0 {
                    let violation = format!("VIRTIO 1.2, 2.2.1: word {select} is not offered");
                    self.violations.push(violation);
                    return;
                }
                let shift = 32 * select;
                let others = self.driver_features & !(0xffff_ffff << shift);
                self.driver_features = others | (u128::from(value) << shift);
            }
            0x10 => self.config_vector = self.vector(half, plan.vectors),
            0x14 => self.write_status(plan, value.to_le_bytes()[0]),
            0x16 => self.select = half,
            0x1a => {
                let vector = self.vector(half, plan.vectors);
                self.queue().expect("a queue that exists").vector = vector;
            }
            0x18 => {
                let queue = self.queue().expect("a queue that exists");
                if half <= queue.max {
                    queue.size = half;
                }
            }
            0x1c if half == 1 => {
                let queue = self.queue().expect("a queue that exists");
                (queue.enabled, queue.interrupts_with) = (true, queue.vector);
            }
            // VIRTIO 1.2, 4.1.4.3.2: the driver must not write 0.
            0x1c => self.violations.push("0 written to queue_enable".into()),
            0x20..=0x37 => {
                let at = usize::try_from(offset - 0x20).expect("few") / 4;
                let queue = self.queue().expect("a queue that exists");
                queue.address[at] = value;
                let due = queue.half_written.take().map(|low| low + 1);
                if at.is_multiple_of(2) {
                    queue.half_written = Some(at);
                } else if due != Some(at) {
                    let violation = format!("upper half first at common {offset:#x}");
                    self.violations.push(violation);
                }
            }
            0x3a => self.reset_queue(),
            _ => self.violations.push(format!("write at common {offset:#x}")),
        }
    }

    fn write_status(&mut self, plan: &Plan, status: u8) {
        if status & !self.status & SUSPEND != 0 || self.status & SUSPEND != 0 && status != 0 {
            self.change_motion(status);
            return;
        }
        if status != 0 {
            let offered = self.driver_features & !plan.features == 0;
            let enough = self.insists_on & !self.driver_features == 0;
            self.status = if offered && enough {
                status
            } else {
                status & !8
            };
            return;
        }
        match self.resetting {
            Resetting::AtOnce => {
                self.status = 0;
                self.reset(plan);
            }
            Resetting::After(looks) => self.looks = looks,
            Resetting::Never => {}
        }
        if self.resetting != Resetting::AtOnce && self.status == 0 {
            self.status = 1;
        }
    }

    fn change_motion(&mut self, status: u8) {
        if self.driver_features & suspend() == 0 {
            self.violations.push("SUSPEND without the feature".into());
        }
        if self.status & !status & !DRIVER_OK != 0 {
            self.violations.push("bits of the status taken away".into());
        }
        let resumes = self.status & SUSPEND != 0 && status & DRIVER_OK != 0;
        let suspends = self.status & SUSPEND == 0;
        match self.suspending {
            _ if !resumes && !suspends => self.status = status,
            Suspending::Does if resumes => self.status = status & !SUSPEND,
            Suspending::Does => self.status = status & !DRIVER_OK,
            Suspending::Never => {}
            Suspending::Fails => self.status |= 0x40,
        }
    }

    fn reset_queue(&mut self) {
        let negotiated = self.driver_features & ring_reset() != 0;
        if !negotiated {
            self.violations
                .push("queue_reset without RING_RESET".into());
        }
        let hangs = self.queue_resets_hang;
        let queue = self.queue().expect("a queue that exists");
        *queue = Queue {
            resetting: hangs,
            enabled: hangs,
            ..Queue::new(queue.max)
        };
    }
}

/// VIRTIO 1.2, 4.1.4.3.
fn natural_width(offset: u64) -> u8 {
    match offset {
        0x14 | 0x15 => 1,
        0x10..0x20 | 0x38..=0x3e => 2,
        _ => 4,
    }
}
