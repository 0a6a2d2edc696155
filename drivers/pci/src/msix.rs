//! MSI-X: interrupts that a function raises with a store of its own.
//!
//! The table lies in one of the function's BARs. An entry is masked while it is edited, and the
//! whole function while any entry is. What was written is read back.
//!
//! Source: PCI Local Bus 3.0, 6.8.2.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::Ordering;

use bitflags::bitflags;
use spin::Mutex;
use vdpa::Platform;
use vdpa::dma::IsolationUnit;
use vdpa::platform::{Callback, InterruptMessage, InterruptVector, NoVector};

use super::access::ConfigSpace;
use super::capability::{CapabilityError, MSI_X, capabilities};
use super::claim::{Claim, Registers, ResourceError};

bitflags! {
    /// Message control: the upper half of the first word of the capability.
    #[derive(Clone, Copy)]
    struct Control: u32 {
        const ENABLE = 1 << 31;
        /// Masks every entry, whatever their own masks say.
        const FUNCTION_MASK = 1 << 30;
        /// The number of entries, less one.
        const TABLE_SIZE = 0x7ff << 16;
    }
}

/// The words that say where the table and the pending bits are: three bits of BAR, then the offset.
const TABLE: u16 = 4;
const PENDING: u16 = 8;
const BAR_MASK: u32 = 0b111;

const ENTRY_SIZE: u64 = 16;
const ADDRESS_LOW: u64 = 0;
const ADDRESS_HIGH: u64 = 4;
const DATA: u64 = 8;
const CONTROL: u64 = 12;
/// Entry control, bit 0.
const ENTRY_MASK: u32 = 1;

/// Why an interrupt cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MsixError {
    /// The capability list cannot be followed.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// The registers that hold the table cannot be had.
    #[error("MSI-X table: {0}")]
    Table(#[from] ResourceError),
    /// The table or the pending bits do not fit their BAR.
    #[error("the MSI-X table does not fit its BAR")]
    Outside,
    /// What was written was not there when it was read back.
    #[error("the function does not take what is written to its MSI-X registers")]
    Refused,
    /// Every entry of the table is in use.
    #[error("every MSI-X entry of the function is in use")]
    NoEntry,
    /// The kernel has no vector left.
    #[error(transparent)]
    NoVector(#[from] NoVector),
}

impl Claim {
    /// The function's MSI-X interrupts; `None`, if it has none.
    ///
    /// # Errors
    /// [`MsixError`], if what it has cannot be used.
    pub fn msix(&self) -> Result<Option<Msix>, MsixError> {
        Msix::open(self)
    }
}

/// The MSI-X interrupts of a function. They are enabled while this value or one of its vectors
/// lives; then the capability is as before.
pub struct Msix(Arc<Table>);

struct Table {
    platform: Arc<dyn Platform>,
    unit: Arc<IsolationUnit>,
    config: ConfigSpace,
    capability: u16,
    /// The first word of the capability as it was found.
    found: u32,
    registers: Registers,
    offset: u64,
    /// Where the table and the pending bits lie: the BAR, and the bytes of it.
    places: [(u8, Range<u64>); 2],
    /// Which entries are in use.
    used: Mutex<Vec<bool>>,
}

impl Msix {
    pub(super) fn open(claim: &Claim) -> Result<Option<Self>, MsixError> {
        let config = claim.config();
        let list = capabilities(config)?;
        let Some(capability) = list.iter().find(|capability| capability.id == MSI_X) else {
            return Ok(None);
        };
        let capability = capability.offset;
        let found = config.read32(capability);
        let entries = ((found & Control::TABLE_SIZE.bits()) >> 16) + 1;

        let pending_size = u64::from(entries.div_ceil(64)) * 8;
        let (pending_bar, pending) =
            locate(claim, config.read32(capability + PENDING), pending_size)?;
        let size = u64::from(entries) * ENTRY_SIZE;
        let (bar, offset) = locate(claim, config.read32(capability + TABLE), size)?;

        let registers = claim.map(bar)?;
        let used = Mutex::new(vec![false; entries as usize]);
        let config = config.clone();
        let places = [
            (bar, offset..offset + size),
            (pending_bar, pending..pending + pending_size),
        ];
        let table = Table {
            platform: Arc::clone(claim.platform()),
            unit: Arc::clone(claim.unit()),
            config,
            capability,
            found,
            registers,
            offset,
            places,
            used,
        };
        table.start()?;
        Ok(Some(Self(Arc::new(table))))
    }

    /// How many entries the table has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.used.lock().len()
    }

    /// Whether the table or the pending bits lie in these bytes of a BAR.
    #[must_use]
    pub fn touches(&self, bar: u8, bytes: &Range<u64>) -> bool {
        self.0.places.iter().any(|(place_bar, place)| {
            *place_bar == bar && place.start < bytes.end && bytes.start < place.end
        })
    }

    /// Takes an entry of the table and a vector of the kernel, and joins them. The entry holds no
    /// other message than one that the kernel has given for it.
    ///
    /// ```compile_fail,E0451
    /// fn attack(vector: pci::Vector, interrupt: Box<dyn vdpa::platform::InterruptVector>) -> pci::Vector {
    ///     pci::Vector { interrupt, ..vector }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`MsixError`], if there is none left or the function does not take it.
    pub fn allocate(&self, handler: Callback) -> Result<Vector, MsixError> {
        let mut used = self.0.used.lock();
        let index = used
            .iter()
            .position(|used| !used)
            .ok_or(MsixError::NoEntry)?;
        let Table { platform, unit, .. } = &*self.0;
        let interrupt = platform.allocate_vector(Some(unit), handler)?;
        self.0.set_control(Control::FUNCTION_MASK, Control::empty());
        let written = self.0.write_entry(index, interrupt.message());
        self.0.set_control(Control::empty(), Control::FUNCTION_MASK);
        written?;
        used[index] = true;
        self.0
            .registers
            .function()
            .vectors
            .fetch_add(1, Ordering::Relaxed);
        Ok(Vector {
            index,
            table: Arc::clone(&self.0),
            interrupt,
        })
    }
}

/// An interrupt of a function that this value owns. Dropped, the entry is masked before the kernel
/// gets its vector back.
pub struct Vector {
    index: usize,
    table: Arc<Table>,
    interrupt: Box<dyn InterruptVector>,
}

impl Vector {
    /// The index in the table, by which the function knows it.
    #[must_use]
    pub fn index(&self) -> u16 {
        u16::try_from(self.index).expect("a table has at most 2048 entries")
    }

    /// What the function writes to raise it.
    #[must_use]
    pub fn message(&self) -> InterruptMessage {
        self.interrupt.message()
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        let mut used = self.table.used.lock();
        self.table.mask_entry(self.index);
        used[self.index] = false;
        self.table
            .registers
            .function()
            .vectors
            .fetch_sub(1, Ordering::Relaxed);
    }
}

impl Table {
    /// Enables MSI-X with every entry masked.
    fn start(&self) -> Result<(), MsixError> {
        self.set_control(Control::ENABLE | Control::FUNCTION_MASK, Control::empty());
        if self.config.read32(self.capability) & Control::ENABLE.bits() == 0 {
            return Err(MsixError::Refused);
        }
        let entries = self.used.lock().len();
        for index in 0..entries {
            self.mask_entry(index);
        }
        self.set_control(Control::empty(), Control::FUNCTION_MASK);
        Ok(())
    }

    fn write_entry(&self, index: usize, message: InterruptMessage) -> Result<(), MsixError> {
        let at = self.entry(index);
        let (low, high) = (message.address & 0xffff_ffff, message.address >> 32);
        let words = [
            (ADDRESS_LOW, low),
            (ADDRESS_HIGH, high),
            (DATA, u64::from(message.data)),
        ];
        self.mask_entry(index);
        for (word, value) in words {
            let value = u32::try_from(value).expect("cut to 32 bits");
            // SAFETY: the entry is masked, and gets a message that raises a vector.
            unsafe { self.registers.write32(at + word, value) };
        }
        if words
            .iter()
            .any(|&(word, value)| u64::from(self.registers.read32(at + word)) != value)
        {
            return Err(MsixError::Refused);
        }
        let control = self.registers.read32(at + CONTROL);
        // SAFETY: the entry has a message that raises a vector.
        unsafe { self.registers.write32(at + CONTROL, control & !ENTRY_MASK) };
        Ok(())
    }

    fn mask_entry(&self, index: usize) {
        let at = self.entry(index) + CONTROL;
        let control = self.registers.read32(at);
        // SAFETY: a masked entry sends nothing.
        unsafe { self.registers.write32(at, control | ENTRY_MASK) };
        // Reading waits until the write has arrived, and with it any interrupt already on its way.
        let _ = self.registers.read32(at);
    }

    /// Where an entry lies in the BAR.
    fn entry(&self, index: usize) -> u64 {
        let index = u64::try_from(index).expect("a table has at most 2048 entries");
        self.offset + index * ENTRY_SIZE
    }

    fn set_control(&self, set: Control, clear: Control) {
        let control = self.config.read32(self.capability);
        self.config
            .write32(self.capability, (control | set.bits()) & !clear.bits());
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.config.write32(self.capability, self.found);
    }
}

/// The BAR and the offset that a word of the capability names, if `size` bytes are there.
fn locate(claim: &Claim, word: u32, size: u64) -> Result<(u8, u64), MsixError> {
    let bar = u8::try_from(word & BAR_MASK).expect("three bits");
    let offset = u64::from(word & !BAR_MASK);
    if offset + size > claim.memory_bar(bar)?.size {
        return Err(MsixError::Outside);
    }
    Ok((bar, offset))
}

impl fmt::Debug for Msix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Msix({}, {} entries)",
            self.0.config.address(),
            self.size()
        )
    }
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Vector({}, entry {})",
            self.table.config.address(),
            self.index
        )
    }
}
