//! A part of the registers behind a BAR, in which one structure lies.

use core::ops::Range;

use pci::{Claim, Registers, ResourceError};
use virtq::{Doorbell, NotifyFormat};

use super::capability::Place;

/// A part of the registers behind a BAR. Offsets count from its start.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    registers: Registers,
    start: u64,
    length: u64,
}

impl Window {
    pub(super) fn map(claim: &Claim, place: Place) -> Result<Self, ResourceError> {
        let Place {
            bar,
            offset,
            length,
        } = place;
        Self::of_bar(claim, bar, offset..offset + length)
    }

    /// These bytes of a BAR, which has them.
    pub(super) fn of_bar(claim: &Claim, bar: u8, bytes: Range<u64>) -> Result<Self, ResourceError> {
        Ok(Self {
            registers: claim.map(bar)?,
            start: bytes.start,
            length: bytes.end - bytes.start,
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.length
    }

    pub(super) fn read8(&self, offset: u64) -> u8 {
        self.registers.read8(self.start + offset)
    }

    pub(crate) fn read16(&self, offset: u64) -> u16 {
        self.registers.read16(self.start + offset)
    }

    pub(crate) fn read32(&self, offset: u64) -> u32 {
        self.registers.read32(self.start + offset)
    }

    pub(super) fn write8(&self, offset: u64, value: u8) {
        // SAFETY: the opener of the function has promised what it is told.
        unsafe { self.registers.write8(self.start + offset, value) };
    }

    pub(crate) fn write16(&self, offset: u64, value: u16) {
        // SAFETY: as for `write8`.
        unsafe { self.registers.write16(self.start + offset, value) };
    }

    pub(crate) fn write32(&self, offset: u64, value: u32) {
        // SAFETY: as for `write8`.
        unsafe { self.registers.write32(self.start + offset, value) };
    }

    pub(super) fn doorbell(
        &self,
        offset: u64,
        index: u16,
        format: NotifyFormat,
    ) -> Option<Doorbell> {
        // SAFETY: a notification has the device look into rings that somebody vouches for.
        unsafe { self.registers.doorbell(self.start + offset, index, format) }
    }
}
