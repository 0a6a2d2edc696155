//! Owning a function: its registers belong to one driver at a time.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::Ordering;

use pci_types::CommandRegister;
use spin::Mutex;
use vdpa::Platform;
use vdpa::dma::IsolationUnit;
use vdpa::platform::{MapError, Mmio, PhysAddr};

use super::access::ConfigSpace;
use super::bar::{BAR_COUNT, Bar, BarError, BarKind};
use super::command::Enabled;
use super::function::FunctionState;

/// Why a driver cannot have a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// Somebody else has the function, or still holds a mapping.
    #[error("somebody else has the function")]
    Claimed,
    /// There is no such base address register.
    #[error("the function has no such BAR")]
    NoBar,
    /// The register says something impossible.
    #[error(transparent)]
    BadBar(#[from] BarError),
    /// The registers are I/O ports, which this crate does not drive.
    #[error("the BAR is one of I/O ports")]
    IoBar,
    /// There was no room for one of the function's memory BARs. Decode is on for all or none of
    /// them, so the function cannot be used.
    #[error("a memory BAR of the function has no address")]
    Unassigned,
    /// The kernel does not map it.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// The right to use a function. Its memory decode is on for as long as the claim or one of its
/// mappings lives, and then as it was.
///
/// Nothing that it lets safe code do makes the function reach memory: who lets it master the bus
/// answers for what it is told,
///
/// ```compile_fail,E0133
/// fn attack(claim: &pci::Claim) {
///     let _ = claim.enable_bus_master();
/// }
/// ```
///
/// and so does who writes to its registers,
///
/// ```compile_fail,E0133
/// fn attack(claim: &pci::Claim) {
///     claim.map(0).unwrap().write32(0, 0x1000);
/// }
/// ```
///
/// while configuration space is only read.
///
/// ```compile_fail,E0624
/// fn attack(claim: &pci::Claim) {
///     claim.config().write32(0x04, 7);
/// }
/// ```
pub struct Claim {
    token: Arc<Token>,
    unit: Arc<IsolationUnit>,
    platform: Arc<dyn Platform>,
    mapped: Mutex<[Option<Registers>; BAR_COUNT]>,
}

impl Claim {
    pub(super) fn new(
        function: &Arc<FunctionState>,
        unit: &Arc<IsolationUnit>,
        platform: &Arc<dyn Platform>,
    ) -> Result<Self, ResourceError> {
        let memory = function
            .bars
            .iter()
            .filter_map(|bar| bar.ok()?.filter(Bar::is_memory));
        if memory.clone().any(|bar| bar.address.is_none()) {
            return Err(ResourceError::Unassigned);
        }
        if function.claimed.swap(true, Ordering::Acquire) {
            return Err(ResourceError::Claimed);
        }
        let unclaim = Unclaim(Arc::clone(function));
        let decode = Enabled::new(&function.config, CommandRegister::MEMORY_ENABLE);
        let token = Arc::new(Token {
            _decode: decode,
            unclaim,
        });
        Ok(Self {
            token,
            unit: Arc::clone(unit),
            platform: Arc::clone(platform),
            mapped: Mutex::default(),
        })
    }

    /// The configuration space.
    #[must_use]
    pub fn config(&self) -> &ConfigSpace {
        &self.token.function().config
    }

    /// Lets the function reach memory and send interrupt messages, until the value is dropped. Its
    /// interrupt pin is off meanwhile.
    ///
    /// # Safety
    /// Until then the function is told of no memory but what is lent to it, and what firmware may
    /// have left running has been stopped.
    pub unsafe fn enable_bus_master(&self) -> BusMaster {
        let bits = CommandRegister::BUS_MASTER_ENABLE | CommandRegister::INTERRUPT_DISABLE;
        BusMaster {
            enabled: Enabled::new(self.config(), bits),
            _token: Arc::clone(&self.token),
        }
    }

    /// What an IOMMU takes the function for.
    pub(super) fn unit(&self) -> &Arc<IsolationUnit> {
        &self.unit
    }

    /// The kernel that the function's segment belongs to.
    pub(super) fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    /// What is known of a memory register that can be mapped.
    ///
    /// # Errors
    /// [`ResourceError`], if there is no such memory.
    pub fn memory_bar(&self, index: u8) -> Result<Bar, ResourceError> {
        let bars = &self.token.function().bars;
        let bar = bars.get(usize::from(index)).ok_or(ResourceError::NoBar)?;
        let bar = (*bar)?.ok_or(ResourceError::NoBar)?;
        if bar.kind == BarKind::Io {
            return Err(ResourceError::IoBar);
        }
        Ok(bar)
    }

    /// The registers behind a base address register. They are mapped once.
    ///
    /// # Errors
    /// [`ResourceError`], if there are none or the kernel does not map them.
    pub fn map(&self, index: u8) -> Result<Registers, ResourceError> {
        let bar = self.memory_bar(index)?;
        let base = PhysAddr(bar.address.ok_or(ResourceError::Unassigned)?);
        let mut mapped = self.mapped.lock();
        let slot = mapped
            .get_mut(usize::from(index))
            .ok_or(ResourceError::NoBar)?;
        if let Some(registers) = slot {
            return Ok(registers.clone());
        }
        // SAFETY: the BAR says so, and the function is claimed.
        let mmio = unsafe { self.platform.map_mmio(base, bar.size) }?;
        let registers = Registers {
            mmio,
            token: Arc::clone(&self.token),
        };
        Ok(slot.insert(registers).clone())
    }
}

/// A function masters the bus for as long as this value lives, and then does as it did before. It
/// keeps the function claimed.
#[derive(Debug)]
#[must_use = "the function masters the bus no more when the value is dropped"]
pub struct BusMaster {
    // Dropped in this order: nobody else gets a function that still reaches memory.
    enabled: Enabled,
    _token: Arc<Token>,
}

impl BusMaster {
    /// Ends what the function does on its own, interrupts by message included.
    pub fn stop(&self) {
        self.enabled.config().stop_bus_master();
    }
}

/// Keeps a function claimed.
struct Token {
    // Dropped in this order: decode is as before when the next owner may come.
    _decode: Enabled,
    unclaim: Unclaim,
}

impl Token {
    fn function(&self) -> &Arc<FunctionState> {
        &self.unclaim.0
    }
}

struct Unclaim(Arc<FunctionState>);

impl Drop for Unclaim {
    fn drop(&mut self) {
        self.0.claimed.store(false, Ordering::Release);
    }
}

/// Mapped registers of a function that keep it claimed.
#[derive(Clone)]
pub struct Registers {
    mmio: Arc<dyn Mmio>,
    token: Arc<Token>,
}

impl Registers {
    pub(super) fn function(&self) -> &Arc<FunctionState> {
        self.token.function()
    }
}

impl Deref for Registers {
    type Target = dyn Mmio;

    fn deref(&self) -> &Self::Target {
        &*self.mmio
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.function().config.address())
    }
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Registers({}, {} bytes)",
            self.function().config.address(),
            self.mmio.len()
        )
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({})", self.config().address())
    }
}
