//! The registers of a device (VIRTIO 1.2, 4.2.2): 32 bits each, and behind them the configuration
//! space.
//!
//! Several show what a selector selects, so selector and register are used under one lock. It is a
//! plain spin lock: of the registers an interrupt handler may only use those of the interrupt.

use alloc::sync::Arc;

use spin::{Mutex, MutexGuard};
use vdpa::Features;
use vdpa::ops::{OpError, QueueAddress};
use vdpa::platform::Mmio;
use virtio::DeviceStatus;
use virtq::{DmaAddr, Doorbell, NotifyFormat};

const MAGIC_VALUE: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const VENDOR_ID: u64 = 0x00c;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_NUM_MAX: u64 = 0x034;
const QUEUE_NUM: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC: u64 = 0x080;
const QUEUE_DRIVER: u64 = 0x090;
const QUEUE_DEVICE: u64 = 0x0a0;
const QUEUE_RESET: u64 = 0x0c0;
const CONFIG_GENERATION: u64 = 0x0fc;
const CONFIG: u64 = 0x100;

/// "virt", little-endian.
pub(crate) const MAGIC: u32 = 0x7472_6976;

/// How often a configuration that changes while it is read is read again.
const CONFIG_ATTEMPTS: usize = 16;

pub(crate) struct Registers {
    mmio: Arc<dyn Mmio>,
    /// Held from writing a selector to the last use of what it selects.
    selector: Mutex<()>,
}

impl Registers {
    /// `None`, if the range is too small for them.
    ///
    /// # Safety
    /// Whatever is written to the registers, the device finds in memory only what is lent to it, as
    /// [`VdpaOps`](vdpa::VdpaOps) says.
    pub(crate) unsafe fn new(mmio: Arc<dyn Mmio>) -> Option<Self> {
        let selector = Mutex::new(());
        (mmio.len() >= CONFIG).then_some(Self { mmio, selector })
    }

    fn write32(&self, offset: u64, value: u32) {
        // SAFETY: the maker of the value has promised what the device is told.
        unsafe { self.mmio.write32(offset, value) };
    }

    pub(crate) fn magic(&self) -> u32 {
        self.mmio.read32(MAGIC_VALUE)
    }

    pub(crate) fn version(&self) -> u32 {
        self.mmio.read32(VERSION)
    }

    pub(crate) fn device_id(&self) -> u32 {
        self.mmio.read32(DEVICE_ID)
    }

    pub(crate) fn vendor_id(&self) -> u32 {
        self.mmio.read32(VENDOR_ID)
    }

    pub(crate) fn device_features(&self) -> Features {
        let _selector = self.selector.lock();
        Features::from_words([0, 1, 2, 3].map(|select| {
            self.write32(DEVICE_FEATURES_SEL, select);
            self.mmio.read32(DEVICE_FEATURES)
        }))
    }

    pub(crate) fn set_driver_features(&self, features: Features, offered: Features) {
        let _selector = self.selector.lock();
        for (select, word) in features.words_for(offered) {
            self.write32(DRIVER_FEATURES_SEL, select);
            self.write32(DRIVER_FEATURES, word);
        }
    }

    /// The device status; [`OpError::Gone`] if every bit is set, because then nobody answers.
    pub(crate) fn status(&self) -> Result<DeviceStatus, OpError> {
        match self.mmio.read32(STATUS).to_le_bytes() {
            [u8::MAX, u8::MAX, ..] => Err(OpError::Gone),
            [bits, ..] => Ok(DeviceStatus::from_bits_retain(bits)),
        }
    }

    pub(crate) fn set_status(&self, status: DeviceStatus) {
        self.write32(STATUS, status.bits().into());
    }

    /// The registers of one queue, to the exclusion of the others while the value lives.
    pub(crate) fn queue(&self, index: u16) -> QueueRegisters<'_> {
        let selector = self.selector.lock();
        self.write32(QUEUE_SEL, index.into());
        QueueRegisters {
            registers: self,
            _selector: selector,
        }
    }

    pub(crate) fn doorbell(&self, index: u16, format: NotifyFormat) -> Option<Doorbell> {
        // SAFETY: a notification has the device look into rings that somebody vouches for.
        unsafe { self.mmio.doorbell(QUEUE_NOTIFY, index, format) }
    }

    /// Why the device interrupts; the reasons are taken back. It may be called by an interrupt
    /// handler.
    pub(crate) fn take_interrupt(&self) -> Result<u32, OpError> {
        let reasons = self.mmio.read32(INTERRUPT_STATUS);
        if reasons == u32::MAX {
            return Err(OpError::Gone);
        }
        if reasons != 0 {
            self.write32(INTERRUPT_ACK, reasons);
        }
        Ok(reasons)
    }

    pub(crate) fn config_generation(&self) -> u32 {
        self.mmio.read32(CONFIG_GENERATION)
    }

    pub(crate) fn config_size(&self) -> u32 {
        u32::try_from(self.mmio.len() - CONFIG).unwrap_or(u32::MAX)
    }

    /// Reads from the configuration space until it did not change meanwhile, in the widths that
    /// VIRTIO 1.2, 4.2.2.2 demands: a read of 1, 2, 4 or 8 aligned bytes is one of a field,
    /// anything else an array of bytes.
    pub(crate) fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        let start = self.config_place(offset, bytes.len())?;
        for _ in 0..CONFIG_ATTEMPTS {
            let before = self.config_generation();
            match width(offset, bytes.len()) {
                4 => {
                    for (at, word) in (start..).step_by(4).zip(bytes.chunks_exact_mut(4)) {
                        word.copy_from_slice(&self.mmio.read32(at).to_le_bytes());
                    }
                }
                2 => bytes.copy_from_slice(&self.mmio.read16(start).to_le_bytes()),
                _ => {
                    for (at, byte) in (start..).zip(&mut *bytes) {
                        *byte = self.mmio.read8(at);
                    }
                }
            }
            if self.config_generation() == before {
                return Ok(());
            }
        }
        Err(OpError::Timeout)
    }

    /// Writes to the configuration space, in the same widths.
    pub(crate) fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        let start = self.config_place(offset, bytes.len())?;
        match (width(offset, bytes.len()), bytes) {
            (4, _) => {
                for (at, word) in (start..).step_by(4).zip(bytes.chunks_exact(4)) {
                    let word = word.try_into().expect("chunks of four bytes");
                    self.write32(at, u32::from_le_bytes(word));
                }
            }
            (2, &[low, high]) => {
                // SAFETY: as for `write32`.
                unsafe { self.mmio.write16(start, u16::from_le_bytes([low, high])) };
            }
            _ => {
                for (at, byte) in (start..).zip(bytes) {
                    // SAFETY: as for `write32`.
                    unsafe { self.mmio.write8(at, *byte) };
                }
            }
        }
        Ok(())
    }

    fn config_place(&self, offset: u32, len: usize) -> Result<u64, OpError> {
        let start = CONFIG + u64::from(offset);
        let len = u64::try_from(len).map_err(|_| OpError::OutOfRange)?;
        let inside = start
            .checked_add(len)
            .is_some_and(|end| end <= self.mmio.len());
        inside.then_some(start).ok_or(OpError::OutOfRange)
    }
}

/// The registers of the queue that is selected.
pub(crate) struct QueueRegisters<'a> {
    registers: &'a Registers,
    _selector: MutexGuard<'a, ()>,
}

impl QueueRegisters<'_> {
    /// The largest size; 0 if there is no such queue.
    pub(crate) fn size_max(&self) -> u32 {
        self.registers.mmio.read32(QUEUE_NUM_MAX)
    }

    pub(crate) fn set_size(&self, size: u16) {
        self.registers.write32(QUEUE_NUM, size.into());
    }

    pub(crate) fn set_address(&self, address: QueueAddress) {
        let write = |offset, DmaAddr(address)| {
            let (low, high) = halves(address);
            self.registers.write32(offset, low);
            self.registers.write32(offset + 4, high);
        };
        write(QUEUE_DESC, address.descriptor);
        write(QUEUE_DRIVER, address.driver);
        write(QUEUE_DEVICE, address.device);
    }

    pub(crate) fn set_ready(&self) {
        self.registers.write32(QUEUE_READY, 1);
    }

    pub(crate) fn ready(&self) -> u32 {
        self.registers.mmio.read32(QUEUE_READY)
    }

    pub(crate) fn reset(&self) {
        self.registers.write32(QUEUE_RESET, 1);
    }

    /// Not 0 while the queue is being reset.
    pub(crate) fn resetting(&self) -> u32 {
        self.registers.mmio.read32(QUEUE_RESET)
    }
}

/// The width in which a field of `len` bytes is accessed.
fn width(offset: u32, len: usize) -> u32 {
    match len {
        4 | 8 if offset.is_multiple_of(4) => 4,
        2 if offset.is_multiple_of(2) => 2,
        _ => 1,
    }
}

/// The two 32-bit halves, the lower first.
fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}
