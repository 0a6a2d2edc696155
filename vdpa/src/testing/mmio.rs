//! A part of some device registers, as a mapping shows it.

use alloc::sync::Arc;

use virtq::{Doorbell, NotifyFormat};

use crate::platform::Mmio;

/// `len` bytes from `start` on; nothing outside can be reached.
#[derive(Debug)]
pub(super) struct Window {
    registers: Arc<dyn Mmio>,
    start: u64,
    len: u64,
}

impl Window {
    /// `None`, if the window does not lie inside the registers.
    pub(super) fn new(registers: &Arc<dyn Mmio>, start: u64, len: u64) -> Option<Self> {
        let end = start.checked_add(len)?;
        (end <= registers.len()).then(|| Self {
            registers: Arc::clone(registers),
            start,
            len,
        })
    }

    /// Where an access of `size` bytes goes, if it stays inside.
    fn place(&self, offset: u64, size: u64) -> Option<u64> {
        let end = offset.checked_add(size)?;
        (end <= self.len).then_some(self.start + offset)
    }
}

// SAFETY: every access goes to the registers, inside of them.
unsafe impl Mmio for Window {
    fn len(&self) -> u64 {
        self.len
    }

    fn read8(&self, offset: u64) -> u8 {
        self.place(offset, 1)
            .map_or(u8::MAX, |offset| self.registers.read8(offset))
    }

    fn read16(&self, offset: u64) -> u16 {
        self.place(offset, 2)
            .map_or(u16::MAX, |offset| self.registers.read16(offset))
    }

    fn read32(&self, offset: u64) -> u32 {
        self.place(offset, 4)
            .map_or(u32::MAX, |offset| self.registers.read32(offset))
    }

    unsafe fn write8(&self, offset: u64, value: u8) {
        if let Some(offset) = self.place(offset, 1) {
            // SAFETY: the caller vouches for it.
            unsafe { self.registers.write8(offset, value) };
        }
    }

    unsafe fn write16(&self, offset: u64, value: u16) {
        if let Some(offset) = self.place(offset, 2) {
            // SAFETY: the caller vouches for it.
            unsafe { self.registers.write16(offset, value) };
        }
    }

    unsafe fn write32(&self, offset: u64, value: u32) {
        if let Some(offset) = self.place(offset, 4) {
            // SAFETY: the caller vouches for it.
            unsafe { self.registers.write32(offset, value) };
        }
    }

    unsafe fn doorbell(&self, offset: u64, index: u16, format: NotifyFormat) -> Option<Doorbell> {
        let place = self.place(offset, 2)?;
        // SAFETY: the caller vouches for it.
        unsafe { self.registers.doorbell(place, index, format) }
    }
}
