//! Configuration space: how its registers are reached, and one function's view of it.
//!
//! A back-end implements [`ConfigAccess`]; everything else in the project uses [`ConfigSpace`],
//! which is safe because it only names functions and offsets that the back-end covers.
//! Configuration space is never touched from an interrupt handler, so plain spin locks do.
//!
//! Source: PCI Local Bus 3.0, 3.2.2.3 and 6.1; PCI Express Base 6.0, 7.2.

use alloc::sync::Arc;
use core::fmt;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicBool, Ordering};

use pci_types::{CommandRegister, ConfigRegionAccess, PciAddress};
use spin::Mutex;

/// Vendor id of a function that is not there: nobody answered, so every bit reads as one.
pub(super) const ABSENT: u16 = 0xffff;
/// Offset of the command register; the status register is the upper half of the same word.
const COMMAND: u16 = 0x04;
/// Offset of the word with the class and the revision.
const CLASS: u16 = 0x08;

/// A way to reach the configuration space of one PCI segment.
///
/// Reads and writes are whole aligned words of 32 bits, or of 16 where a register must be written
/// without its neighbour. A read beyond what the back-end reaches gives all ones and a write there
/// does nothing, as for a function that is absent.
pub trait ConfigAccess: ConfigRegionAccess + Send + Sync {
    /// The segment whose functions it reaches.
    fn segment(&self) -> u16;

    /// The buses that it reaches; the first is the root bus.
    fn buses(&self) -> RangeInclusive<u8>;

    /// The bytes of configuration space that it reaches of each function: 256 or 4096.
    fn function_size(&self) -> u16;

    /// Writes the half word at the even `offset`, and nothing beside it.
    ///
    /// # Safety
    /// As for [`ConfigRegionAccess::write`].
    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16);
}

/// The configuration space of one function. Clones share it.
///
/// Anybody may read it. Writing is for this crate, which moves no BAR of a function that somebody
/// has, and lets it master the bus for its owner alone.
#[derive(Clone)]
pub struct ConfigSpace(Arc<Function>);

struct Function {
    access: Arc<dyn ConfigAccess>,
    address: PciAddress,
    /// The function has been pulled out; what answers at its place is another one.
    lost: AtomicBool,
    /// Held while the command register is changed.
    command: Mutex<()>,
}

impl ConfigSpace {
    /// The configuration space of the function at `address`.
    #[must_use]
    pub fn new(access: Arc<dyn ConfigAccess>, address: PciAddress) -> Self {
        Self(Arc::new(Function {
            access,
            address,
            lost: AtomicBool::new(false),
            command: Mutex::new(()),
        }))
    }

    /// Where the function is.
    #[must_use]
    pub fn address(&self) -> PciAddress {
        self.0.address
    }

    /// How many bytes can be reached: 256, or 4096 with the extended space.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.0.access.function_size()
    }

    /// Whether the function answers. A virtual one does not say whose it is, but of which class.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.read16(0) != ABSENT || self.read32(CLASS) != u32::MAX
    }

    /// The function has left its place: from now on it does not answer, even if another one does
    /// there.
    pub(super) fn lose(&self) {
        self.0.lost.store(true, Ordering::Release);
    }

    fn reaches(&self, offset: u16) -> bool {
        offset < self.size() && !self.0.lost.load(Ordering::Acquire)
    }

    /// The word that contains `offset`; all ones beyond the end.
    #[must_use]
    pub fn read32(&self, offset: u16) -> u32 {
        let offset = offset & !3;
        if !self.reaches(offset) {
            return u32::MAX;
        }
        // SAFETY: the back-end answers all ones for a function that is absent, and the aligned
        // offset lies inside what it reaches. Reading configuration space touches no memory.
        unsafe { self.0.access.read(self.0.address, offset) }
    }

    /// The half word at an even `offset`.
    #[must_use]
    pub fn read16(&self, offset: u16) -> u16 {
        let bytes = self.read32(offset).to_le_bytes();
        let at = usize::from(offset & 2);
        u16::from_le_bytes([bytes[at], bytes[at + 1]])
    }

    /// The byte at `offset`.
    #[must_use]
    pub fn read8(&self, offset: u16) -> u8 {
        self.read32(offset).to_le_bytes()[usize::from(offset & 3)]
    }

    /// Writes the word that contains `offset`; does nothing beyond the end.
    pub(crate) fn write32(&self, offset: u16, value: u32) {
        let offset = offset & !3;
        if !self.reaches(offset) {
            return;
        }
        // SAFETY: as for `read32`. What a write lets the device do (decode, master the bus) is
        // bounded by the addresses that this crate's owners of BARs and queues hand out.
        unsafe { self.0.access.write(self.0.address, offset, value) }
    }

    /// Writes the half word at an even `offset`, for registers that this crate has no words for.
    ///
    /// # Safety
    /// What the function does then touches no memory that somebody uses.
    pub unsafe fn write16(&self, offset: u16, value: u16) {
        self.set16(offset, value);
    }

    /// Writes the half word at an even `offset` alone: its neighbour may have bits that a write of
    /// what was read would clear. Does nothing beyond the end.
    pub(crate) fn set16(&self, offset: u16, value: u16) {
        let offset = offset & !1;
        if !self.reaches(offset) {
            return;
        }
        // SAFETY: as for `write32`.
        unsafe { self.0.access.write16(self.0.address, offset, value) }
    }

    /// The command register.
    #[must_use]
    pub(crate) fn command(&self) -> CommandRegister {
        CommandRegister::from_bits_retain(self.read16(COMMAND))
    }

    /// Ends what the function does on its own, interrupts by message included.
    pub(crate) fn stop_bus_master(&self) {
        let master = CommandRegister::BUS_MASTER_ENABLE;
        self.update_command(|command| command.difference(master));
    }

    /// Changes the command register and returns what it was before.
    pub(crate) fn update_command(
        &self,
        change: impl FnOnce(CommandRegister) -> CommandRegister,
    ) -> CommandRegister {
        let _guard = self.0.command.lock();
        let before = self.command();
        let after = change(before);
        if after != before {
            // The status bits in the upper half are cleared by writing ones, so zeros keep them.
            self.write32(COMMAND, u32::from(after.bits()));
        }
        before
    }
}

impl fmt::Debug for ConfigSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigSpace({})", self.0.address)
    }
}
