//! The registers of a unit (VT-d 4.1, 11.4), and what it can do.

use alloc::sync::Arc;
use core::time::Duration;

use bitflags::bitflags;
use vdpa::Platform;
use vdpa::platform::Mmio;

/// How long a unit may take for anything.
pub(super) const DEADLINE: Duration = Duration::from_secs(1);

/// The unit did not do what it was told in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeout;

/// A register, by its offset.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(super) enum Register {
    Version = 0x00,
    Capability = 0x08,
    ExtendedCapability = 0x10,
    GlobalCommand = 0x18,
    GlobalStatus = 0x1c,
    RootTable = 0x20,
    FaultStatus = 0x34,
    FaultEventControl = 0x38,
    FaultEventData = 0x3c,
    FaultEventAddress = 0x40,
    ProtectedMemoryEnable = 0x64,
    QueueHead = 0x80,
    QueueTail = 0x88,
    QueueAddress = 0x90,
    InterruptTable = 0xb8,
}

bitflags! {
    /// What is told in the global command register, and where the global status register answers
    /// (11.4.4).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Global: u32 {
        const COMPATIBILITY_FORMAT = 1 << 23;
        const SET_INTERRUPT_TABLE = 1 << 24;
        const INTERRUPT_REMAPPING = 1 << 25;
        const QUEUED_INVALIDATION = 1 << 26;
        const WRITE_BUFFER_FLUSH = 1 << 27;
        const SET_ROOT_TABLE = 1 << 30;
        const TRANSLATION = 1 << 31;
    }

    /// The fault status register (11.4.7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct FaultStatus: u32 {
        const OVERFLOW = 1 << 0;
        const PENDING = 1 << 1;
        const QUEUE_ERROR = 1 << 4;
        const COMPLETION_ERROR = 1 << 5;
        const COMPLETION_TIMEOUT = 1 << 6;
    }
}

/// What in the global status is a state, and is told again with each command (11.4.4.1).
const STATES: u32 = 0x96ff_ffff;

/// In the fault event control register.
const INTERRUPT_MASK: u32 = 1 << 31;

/// In the protected memory enable register.
const PROTECTED_ENABLE: u32 = 1 << 31;
const PROTECTED_STATUS: u32 = 1;

/// The registers of one unit.
///
/// What is written makes the unit use memory: tables of this crate, which live as long as the unit
/// is on. That is an invariant of the driver, and the reason why its writes are sound.
#[derive(Debug)]
pub(super) struct Registers(Arc<dyn Mmio>);

impl Registers {
    /// `None`, if nothing is there.
    pub(super) fn new(mmio: Arc<dyn Mmio>) -> Option<Self> {
        let registers = Self(mmio);
        (registers.read32(Register::Version) != u32::MAX).then_some(registers)
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn read32(&self, register: Register) -> u32 {
        self.0.read32(register as u64)
    }

    pub(super) fn write32(&self, register: Register, value: u32) {
        self.write_at(register as u64, value);
    }

    /// The lower half first, as all of them want it (11.2).
    pub(super) fn read64(&self, register: Register) -> u64 {
        self.read64_at(register as u64)
    }

    pub(super) fn write64(&self, register: Register, value: u64) {
        self.write_at(register as u64, value as u32);
        self.write_at(register as u64 + 4, (value >> 32) as u32);
    }

    pub(super) fn read64_at(&self, offset: u64) -> u64 {
        let low = u64::from(self.0.read32(offset));
        low | u64::from(self.0.read32(offset + 4)) << 32
    }

    pub(super) fn write_at(&self, offset: u64, value: u32) {
        // SAFETY: the unit uses no memory but the driver's tables, as the type's comment says.
        unsafe { self.0.write32(offset, value) };
    }

    pub(super) fn status(&self) -> Global {
        Global::from_bits_retain(self.read32(Register::GlobalStatus))
    }

    /// Turns something on, or lets it be done, and waits until it is.
    pub(super) fn turn_on(&self, what: Global, platform: &dyn Platform) -> Result<(), Timeout> {
        let states = self.status().bits() & STATES;
        self.write32(Register::GlobalCommand, states | what.bits());
        wait(platform, || {
            // The flush is over when its bit has gone.
            let is_on = self.status().contains(what);
            is_on != (what == Global::WRITE_BUFFER_FLUSH)
        })
    }

    /// Turns something off, and waits until it is.
    pub(super) fn turn_off(&self, what: Global, platform: &dyn Platform) -> Result<(), Timeout> {
        if !self.status().intersects(what) {
            return Ok(());
        }
        let states = self.status().bits() & STATES;
        self.write32(Register::GlobalCommand, states & !what.bits());
        wait(platform, || !self.status().intersects(what))
    }

    pub(super) fn fault_status(&self) -> FaultStatus {
        FaultStatus::from_bits_retain(self.read32(Register::FaultStatus))
    }

    /// Takes down what is taken down by writing it.
    pub(super) fn clear_fault_status(&self, status: FaultStatus) {
        self.write32(Register::FaultStatus, status.bits());
    }

    pub(super) fn mask_fault_event(&self) {
        self.write32(Register::FaultEventControl, INTERRUPT_MASK);
    }

    pub(super) fn unmask_fault_event(&self) {
        self.write32(Register::FaultEventControl, 0);
    }

    /// Ends the protection of memory by ranges, which firmware may have begun (11.4.8).
    pub(super) fn end_protected_ranges(&self, platform: &dyn Platform) -> Result<(), Timeout> {
        let register = Register::ProtectedMemoryEnable;
        let value = self.read32(register);
        self.write32(register, value & !PROTECTED_ENABLE);
        wait(platform, || self.read32(register) & PROTECTED_STATUS == 0)
    }
}

/// Waits for something that the unit does.
pub(super) fn wait(
    platform: &dyn Platform,
    mut is_done: impl FnMut() -> bool,
) -> Result<(), Timeout> {
    let until = platform.now() + DEADLINE;
    while !is_done() {
        if platform.now() > until {
            // It may have been done while somebody else had the processor.
            return is_done().then_some(()).ok_or(Timeout);
        }
        core::hint::spin_loop();
    }
    Ok(())
}
