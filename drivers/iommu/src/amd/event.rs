//! The event log: what the IOMMU has refused, and what went wrong with it (AMD 48882, 2.5).

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use vdpa::Platform;
use vdpa::dma::{DmaFault, DmaFaultKind};
use vdpa::iotlb::Permission;
use virtq::{DmaError, SharedMemory};

use super::registers::{Control, Register, Registers, Status};

/// The size of an entry in bytes.
const SIZE: u32 = 16;
const ENTRIES_LOG2: u32 = 9;
const BYTES: u32 = SIZE << ENTRIES_LOG2;
/// The tail may be seen before the entry: so often is one looked at that is empty.
const TRIES: usize = 1000;

// The flags of an event, as bits of its first eight bytes.
const INTERRUPT: u64 = 1 << 51;
const PRESENT: u64 = 1 << 52;
const WRITE: u64 = 1 << 53;
const NOT_PERMITTED: u64 = 1 << 54;

/// The megabyte that interrupt messages are written to.
const INTERRUPT_ADDRESSES: u64 = 0xfee;

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    IllegalDevTableEntry,
    IoPageFault,
    DevTabHardwareError,
    PageTabHardwareError,
    IllegalCommandError,
    CommandHardwareError,
    IotlbInvTimeout,
    InvalidDeviceRequest,
    /// Of a kind that is not expected: nothing that it reports is on.
    Other,
}

impl EventKind {
    const ALL: [Self; 9] = [
        Self::IllegalDevTableEntry,
        Self::IoPageFault,
        Self::DevTabHardwareError,
        Self::PageTabHardwareError,
        Self::IllegalCommandError,
        Self::CommandHardwareError,
        Self::IotlbInvTimeout,
        Self::InvalidDeviceRequest,
        Self::Other,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::IllegalDevTableEntry => "ILLEGAL_DEV_TABLE_ENTRY",
            Self::IoPageFault => "IO_PAGE_FAULT",
            Self::DevTabHardwareError => "DEV_TAB_HARDWARE_ERROR",
            Self::PageTabHardwareError => "PAGE_TAB_HARDWARE_ERROR",
            Self::IllegalCommandError => "ILLEGAL_COMMAND_ERROR",
            Self::CommandHardwareError => "COMMAND_HARDWARE_ERROR",
            Self::IotlbInvTimeout => "IOTLB_INV_TIMEOUT",
            Self::InvalidDeviceRequest => "INVALID_DEVICE_REQUEST",
            Self::Other => "unknown event",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: EventKind,
    /// The requester id. Not of errors of commands.
    pub(super) device: u16,
    /// The address that the device has used, or where the IOMMU found what it does not like.
    pub(super) addr: u64,
    flags: u64,
}

impl Event {
    /// `None`, if nothing has been written there yet.
    fn decode([first, addr]: [u64; 2]) -> Option<Self> {
        let kind = match first >> 60 {
            0 => return None,
            1 => EventKind::IllegalDevTableEntry,
            2 => EventKind::IoPageFault,
            3 => EventKind::DevTabHardwareError,
            4 => EventKind::PageTabHardwareError,
            5 => EventKind::IllegalCommandError,
            6 => EventKind::CommandHardwareError,
            7 => EventKind::IotlbInvTimeout,
            8 => EventKind::InvalidDeviceRequest,
            _ => EventKind::Other,
        };
        Some(Self {
            kind,
            device: first as u16,
            addr,
            flags: first,
        })
    }

    /// The access of a device that was refused. `None`, if it is about something else, such as the
    /// IOMMU's commands.
    pub(super) fn fault(&self) -> Option<DmaFault> {
        // QEMU marks all of them as interrupts.
        let is_interrupt = self.flags & INTERRUPT != 0 && self.addr >> 20 == INTERRUPT_ADDRESSES;
        let kind = match self.kind {
            EventKind::IoPageFault if is_interrupt => DmaFaultKind::Other,
            EventKind::IoPageFault if self.flags & PRESENT == 0 => DmaFaultKind::NotMapped,
            EventKind::IoPageFault if self.flags & NOT_PERMITTED != 0 => DmaFaultKind::NotPermitted,
            EventKind::IoPageFault
            | EventKind::IllegalDevTableEntry
            | EventKind::DevTabHardwareError
            | EventKind::PageTabHardwareError
            | EventKind::InvalidDeviceRequest => DmaFaultKind::Other,
            EventKind::IllegalCommandError
            | EventKind::CommandHardwareError
            | EventKind::IotlbInvTimeout
            | EventKind::Other => return None,
        };
        let access = if self.flags & WRITE != 0 || is_interrupt {
            Permission::WRITE
        } else if self.flags & INTERRUPT != 0 {
            Permission::empty()
        } else {
            Permission::READ
        };
        Some(DmaFault {
            addr: self.addr,
            access,
            kind,
        })
    }

    /// Whether the IOMMU executes no commands any more.
    pub(super) fn stops_commands(&self) -> bool {
        matches!(
            self.kind,
            EventKind::IllegalCommandError | EventKind::CommandHardwareError
        )
    }
}

/// How many events there were of each kind.
#[derive(Debug, Default)]
pub(super) struct EventCounts {
    counts: [AtomicU64; EventKind::ALL.len()],
    /// How often the log was full.
    pub(super) overflows: AtomicU64,
    /// How many of them were of devices that nobody knows.
    strangers: AtomicU64,
}

impl EventCounts {
    /// Counts an event. Returns how many there were of its kind.
    pub(super) fn add(&self, kind: EventKind) -> u64 {
        let count = self.counts.get(kind as usize);
        count.map_or(0, |count| count.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Counts an event of a device that nobody knows. Returns how many there were.
    pub(super) fn add_stranger(&self) -> u64 {
        self.strangers.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Those that there were, by name.
impl fmt::Display for EventCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (kind, count) in EventKind::ALL.iter().zip(&self.counts) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                write!(f, "{separator}{count} {kind}")?;
                separator = ", ";
            }
        }
        let overflows = self.overflows.load(Ordering::Relaxed);
        if overflows > 0 {
            write!(f, "{separator}{overflows} overflows")?;
        } else if separator.is_empty() {
            f.write_str("none")?;
        }
        Ok(())
    }
}

/// The memory of the log, and how far it has been read.
#[derive(Debug)]
pub(super) struct EventLog {
    memory: SharedMemory,
    /// In bytes.
    head: u32,
}

impl EventLog {
    pub(super) fn new(platform: &dyn Platform) -> Result<Self, DmaError> {
        Ok(Self {
            memory: SharedMemory::new(&platform.dma(), BYTES as usize)?,
            head: 0,
        })
    }

    /// Event Log Base Address (AMD 48882, 3.4.1): with the logarithm of the length.
    pub(super) fn base(&self) -> u64 {
        self.memory.addr().0 | u64::from(ENTRIES_LOG2) << 56
    }

    /// Takes what is in the log, at most once around. A full log is counted and goes on.
    pub(super) fn drain(
        &mut self,
        registers: &Registers,
        platform: &dyn Platform,
        counts: &EventCounts,
        mut take: impl FnMut(Event),
    ) {
        // First: what comes later raises the interrupt anew.
        registers.acknowledge(Status::EVENT_LOG_INT);
        for _ in 0..1 << ENTRIES_LOG2 {
            let tail = registers.read_lower(Register::EventTail) & (BYTES - 1) & !(SIZE - 1);
            if self.head == tail {
                break;
            }
            if let Some(event) = self.pop() {
                take(event);
            }
            // SAFETY: the IOMMU writes to the log alone.
            unsafe { registers.write_lower(Register::EventHead, self.head) };
        }
        if registers.status().contains(Status::EVENT_OVERFLOW) {
            counts.overflows.fetch_add(1, Ordering::Relaxed);
            restart(registers, platform);
        }
    }

    /// `None`, if the IOMMU does not write what it says that it has.
    fn pop(&mut self) -> Option<Event> {
        let at = u64::from(self.head);
        self.head = (self.head + SIZE) % BYTES;
        let event = (0..TRIES).find_map(|_| {
            let mut words = [[0; 8]; 2];
            let [first, addr] = &mut words;
            // The kind is in the first word: whatever it says, the second is read after it.
            self.memory.read(at, first).ok()?;
            self.memory.read(at + 8, addr).ok()?;
            Event::decode(words.map(u64::from_le_bytes))
        });
        // So that the place is empty next time.
        let emptied = self.memory.write(at, &[0; SIZE as usize]);
        event.filter(|_| emptied.is_ok())
    }
}

/// Lets a log go on that was full (AMD 48882, 2.5.1). The IOMMU goes on writing where it was.
fn restart(registers: &Registers, platform: &dyn Platform) {
    let control = registers.control();
    // SAFETY: the IOMMU stops to write.
    unsafe { registers.set_control(control - Control::EVENT_LOG_EN) };
    if !registers.stopped(Status::EVENT_LOG_RUN, platform) {
        log::warn!("the event log of an AMD IOMMU does not stop");
    }
    registers.acknowledge(Status::EVENT_OVERFLOW);
    // SAFETY: it writes to the log alone, which is there as long as the IOMMU is on.
    unsafe { registers.set_control(control) };
}
