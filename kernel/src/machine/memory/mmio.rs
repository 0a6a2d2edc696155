//! Device registers that are mapped into memory.

use core::fmt;
use core::ops::Range;
use core::ptr::{NonNull, with_exposed_provenance_mut};

use heapless::Vec;
use spin::Once;
use vdpa::platform::{MapError, Mmio, PhysAddr};
use virtq::{Doorbell, NotifyFormat};
use volatile::VolatilePtr;

use super::{Access, map};
use crate::machine::cpu;
use crate::pure::address_space::reach;
use crate::pure::memory::regions::PAGE_SIZE;

/// The most ranges that are protected from being mapped.
const MAX_MEMORY: usize = 64;

/// Where the interrupts of processors are raised: nothing that a driver may write to at will.
const LOCAL_APICS: Range<u64> = 0xfee0_0000..0xfef0_0000;

/// Registers that take more are left alone: the page tables for them would take the memory of a
/// small machine. In bytes.
const LARGEST: u64 = 4 << 30;

/// What must never be mapped as registers, because it is memory.
static MEMORY: Once<Vec<Range<u64>, MAX_MEMORY>> = Once::new();

/// Mapped device registers.
///
/// The mapping stays for ever, so that a doorbell in it outlives this value; mapping the same
/// registers again costs nothing.
pub(crate) struct Registers {
    base: NonNull<u8>,
    length: u64,
}

// SAFETY: a register takes accesses from any processor at any time, each a single load or store.
unsafe impl Send for Registers {}
// SAFETY: as for `Send`.
unsafe impl Sync for Registers {}

/// Names the memory of the machine, which is then never mapped as device registers.
pub(crate) fn protect(memory: impl Iterator<Item = Range<u64>>) {
    MEMORY.call_once(|| memory.take(MAX_MEMORY).collect());
}

impl Registers {
    /// Maps `length` bytes of device registers at `base`.
    ///
    /// # Errors
    /// [`MapError`], if the range is empty, is not one of addresses that the processor has, holds
    /// memory, or is larger than registers are.
    pub(crate) fn map(base: PhysAddr, length: u64) -> Result<Self, MapError> {
        let end = base
            .0
            .checked_add(length)
            .filter(|_| length != 0)
            .ok_or(MapError)?;
        let pages =
            base.0 - base.0 % PAGE_SIZE..end.checked_next_multiple_of(PAGE_SIZE).ok_or(MapError)?;
        // Before the memory is known nothing can be told from it.
        let memory = MEMORY.get().ok_or(MapError)?;
        let overlaps = |other: &Range<u64>| other.start < pages.end && pages.start < other.end;
        let in_reach = pages.end <= reach(cpu::physical_address_mask());
        if memory.iter().any(overlaps) || overlaps(&LOCAL_APICS) || !in_reach || length > LARGEST {
            return Err(MapError);
        }
        map(pages, Access::Device).map_err(|_| MapError)?;
        let base = NonNull::new(with_exposed_provenance_mut(base.0 as usize)).ok_or(MapError)?;
        Ok(Self { base, length })
    }

    /// The register at `offset`, if all of it lies in the range and is aligned.
    fn register<T: 'static>(&self, offset: u64) -> Option<VolatilePtr<'static, T>> {
        let size = size_of::<T>() as u64;
        if offset.checked_add(size)? > self.length {
            return None;
        }
        // SAFETY: the offset lies in the range.
        let register = unsafe { self.base.byte_add(offset as usize) }.cast::<T>();
        if !register.is_aligned() {
            return None;
        }
        // SAFETY: the register is mapped for ever, aligned, and not memory that anything else
        // refers to. What a device does to memory when it is written is limited to what drivers
        // lend it.
        Some(unsafe { VolatilePtr::new(register) })
    }

    fn read<T: Copy + 'static>(&self, offset: u64, missing: T) -> T {
        self.register(offset).map_or(missing, VolatilePtr::read)
    }

    fn write<T: Copy + 'static>(&self, offset: u64, value: T) {
        if let Some(register) = self.register(offset) {
            register.write(value);
        }
    }
}

// SAFETY: the registers are mapped for ever, and accesses stay inside of the range.
unsafe impl Mmio for Registers {
    fn len(&self) -> u64 {
        self.length
    }

    fn read8(&self, offset: u64) -> u8 {
        self.read(offset, u8::MAX)
    }

    fn read16(&self, offset: u64) -> u16 {
        self.read(offset, u16::MAX)
    }

    fn read32(&self, offset: u64) -> u32 {
        self.read(offset, u32::MAX)
    }

    unsafe fn write8(&self, offset: u64, value: u8) {
        self.write(offset, value);
    }

    unsafe fn write16(&self, offset: u64, value: u16) {
        self.write(offset, value);
    }

    unsafe fn write32(&self, offset: u64, value: u32) {
        self.write(offset, value);
    }

    unsafe fn doorbell(&self, offset: u64, index: u16, format: NotifyFormat) -> Option<Doorbell> {
        Some(match format {
            NotifyFormat::Index => {
                let register = self.register::<u16>(offset)?.as_raw_ptr();
                // SAFETY: the register stays mapped for ever, uncached, and is aligned; notifying a
                // queue affects no memory but what the queue lends to the device.
                unsafe { Doorbell::register16(register, index) }
            }
            NotifyFormat::WideIndex => {
                let register = self.register::<u32>(offset)?.as_raw_ptr();
                // SAFETY: likewise.
                unsafe { Doorbell::wide_register(register, index) }
            }
            NotifyFormat::IndexAndPlace => {
                let register = self.register::<u32>(offset)?.as_raw_ptr();
                // SAFETY: likewise.
                unsafe { Doorbell::register32(register, index) }
            }
        })
    }
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registers({:p}, {:#x} bytes)", self.base, self.length)
    }
}
