//! The registers of an IOMMU (AMD 48882, 3.4).

use alloc::sync::Arc;
use core::time::Duration;

use bitflags::bitflags;
use vdpa::Platform;
use vdpa::platform::Mmio;

/// What is mapped: everything but the performance counters.
pub(super) const REGISTERS_SIZE: u64 = 0x4000;

/// Where a register is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Register {
    DeviceTableBase = 0x0,
    CommandBufferBase = 0x8,
    EventLogBase = 0x10,
    Control = 0x18,
    ExclusionBase = 0x20,
    ExclusionLimit = 0x28,
    ExtendedFeatures = 0x30,
    /// XT IOMMU General Interrupt Control: the interrupt of the event log.
    EventInterrupt = 0x170,
    CommandHead = 0x2000,
    CommandTail = 0x2008,
    EventHead = 0x2010,
    EventTail = 0x2018,
    Status = 0x2020,
}

bitflags! {
    /// IOMMU Control (AMD 48882, 3.4.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Control: u64 {
        const IOMMU_EN = 1 << 0;
        const HT_TUN_EN = 1 << 1;
        const EVENT_LOG_EN = 1 << 2;
        const EVENT_INT_EN = 1 << 3;
        const PASS_PW = 1 << 8;
        const RES_PASS_PW = 1 << 9;
        const COHERENT = 1 << 10;
        const ISOC = 1 << 11;
        const CMD_BUF_EN = 1 << 12;
        const PPR_LOG_EN = 1 << 13;
        const PPR_INT_EN = 1 << 14;
        const PPR_EN = 1 << 15;
        const GA_EN = 1 << 17;
        const GA_LOG_EN = 1 << 28;
        const GA_INT_EN = 1 << 29;
        const XT_EN = 1 << 50;
        const INT_CAP_XT_EN = 1 << 51;
    }

    /// IOMMU Status (AMD 48882, 3.4.16). A bit that says that something has happened is cleared by
    /// writing it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Status: u32 {
        const EVENT_OVERFLOW = 1 << 0;
        const EVENT_LOG_INT = 1 << 1;
        const EVENT_LOG_RUN = 1 << 3;
        const CMD_BUF_RUN = 1 << 4;
    }

    /// IOMMU Extended Feature Register (AMD 48882, 3.4.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Features: u64 {
        /// Interrupts can go to any x2APIC.
        const XT_SUP = 1 << 2;
        /// `INVALIDATE_IOMMU_ALL`.
        const IA_SUP = 1 << 6;
        /// 128-bit entries of interrupt tables.
        const GA_SUP = 1 << 7;
        /// The interrupts of the IOMMU itself can be set in its registers.
        const MSI_CAP_MMIO_SUP = 1 << 46;
    }
}

/// The registers. They are written in halves, of which the upper one comes last: QEMU takes a base
/// with it.
#[derive(Debug)]
pub(super) struct Registers {
    mmio: Arc<dyn Mmio>,
}

impl Registers {
    pub(super) fn new(mmio: Arc<dyn Mmio>) -> Self {
        Self { mmio }
    }

    pub(super) fn read(&self, register: Register) -> u64 {
        let at = register as u64;
        u64::from(self.mmio.read32(at)) | u64::from(self.mmio.read32(at + 4)) << 32
    }

    pub(super) fn read_lower(&self, register: Register) -> u32 {
        self.mmio.read32(register as u64)
    }

    /// # Safety
    /// What the IOMMU does for it touches no memory but what is lent to it.
    pub(super) unsafe fn write(&self, register: Register, value: u64) {
        // SAFETY: the caller vouches for it.
        unsafe { self.write_lower(register, value as u32) };
        // SAFETY: the caller vouches for it.
        unsafe { self.write_upper(register, value) };
    }

    /// # Safety
    /// As for [`write`](Self::write).
    pub(super) unsafe fn write_lower(&self, register: Register, value: u32) {
        // SAFETY: the caller vouches for it.
        unsafe { self.mmio.write32(register as u64, value) };
    }

    /// # Safety
    /// As for [`write`](Self::write).
    unsafe fn write_upper(&self, register: Register, value: u64) {
        // SAFETY: the caller vouches for it.
        unsafe { self.mmio.write32(register as u64 + 4, (value >> 32) as u32) };
    }

    pub(super) fn control(&self) -> Control {
        Control::from_bits_retain(self.read(Register::Control))
    }

    /// What the upper half says must be so before the lower half turns anything on.
    ///
    /// # Safety
    /// As for [`write`](Self::write).
    pub(super) unsafe fn set_control(&self, control: Control) {
        // SAFETY: the caller vouches for it.
        unsafe { self.write_upper(Register::Control, control.bits()) };
        // SAFETY: the caller vouches for it.
        unsafe { self.write_lower(Register::Control, control.bits() as u32) };
    }

    pub(super) fn status(&self) -> Status {
        Status::from_bits_truncate(self.read_lower(Register::Status))
    }

    /// Says that what has happened is known.
    pub(super) fn acknowledge(&self, status: Status) {
        // SAFETY: it only takes flags down.
        unsafe { self.write_lower(Register::Status, status.bits()) };
    }

    /// Waits until none of `running` is. False, if that does not come about.
    pub(super) fn stopped(&self, running: Status, platform: &dyn Platform) -> bool {
        before(platform, STOP_DEADLINE, || {
            !self.status().intersects(running)
        })
    }
}

/// How long the IOMMU may take to stop.
const STOP_DEADLINE: Duration = Duration::from_millis(100);

/// Whether `condition` holds before the deadline.
pub(super) fn before(
    platform: &dyn Platform,
    deadline: Duration,
    condition: impl Fn() -> bool,
) -> bool {
    let start = platform.now();
    loop {
        if condition() {
            return true;
        }
        if platform.now().saturating_sub(start) > deadline {
            // Whoever watches the clock may have been held up meanwhile.
            return condition();
        }
        core::hint::spin_loop();
    }
}
