//! What the drivers need from a kernel: memory for devices, device registers, interrupts, time,
//! tasks.
//!
//! A kernel implements [`Platform`] once and every driver of the project runs on it; the tests
//! implement it with fakes. Nothing here knows PCI: a platform without it serves other parents.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Debug};
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use virtq::{DmaAddr, DmaAllocator, Doorbell, Event, NotifyFormat};

use crate::dma::IsolationUnit;
use crate::error::OpError;
use crate::iotlb::{IovaRange, Permission};

/// A future on the heap, for operations that may wait behind a trait object.
///
/// Sequences that several crates wait for return one, too: an `async fn` would be compiled into
/// each of those who wait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What to do when an interrupt arrives. It runs in interrupt context: it may only wake.
///
/// Of an [`event`](Self::event) the handler of the vector knows that it is one: it raises it in
/// straight code, without a function in between.
#[derive(Clone)]
pub struct Callback {
    action: Action,
    calls: Option<Arc<AtomicU64>>,
}

#[derive(Clone)]
enum Action {
    Raise(Arc<Event>),
    Call(Arc<dyn Fn() + Send + Sync>),
}

impl Callback {
    /// Calls a function.
    #[must_use]
    pub fn new(function: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            action: Action::Call(Arc::new(function)),
            calls: None,
        }
    }

    /// Raises an event.
    #[must_use]
    pub fn event(event: Arc<Event>) -> Self {
        Self {
            action: Action::Raise(event),
            calls: None,
        }
    }

    /// The same, which adds to `calls` each time it is done.
    #[must_use]
    pub fn counted(&self, calls: &Arc<AtomicU64>) -> Self {
        Self {
            action: self.action.clone(),
            calls: Some(Arc::clone(calls)),
        }
    }

    /// Does it.
    #[inline]
    pub fn call(&self) {
        if let Some(calls) = &self.calls {
            calls.fetch_add(1, Ordering::Relaxed);
        }
        match &self.action {
            Action::Raise(event) => event.raise(),
            Action::Call(function) => function(),
        }
    }
}

impl Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.action {
            Action::Raise(_) => "Callback(event)",
            Action::Call(_) => "Callback(function)",
        })
    }
}

/// An address on the processor's memory bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(pub u64);

/// The services of a kernel.
///
/// ```compile_fail,E0133
/// fn attack(platform: &dyn vdpa::Platform) {
///     let _ = platform.map_mmio(vdpa::platform::PhysAddr(0x1000), 0x1000);
/// }
/// ```
///
/// # Safety
/// Memory, registers and vectors are what the methods say, and those of nobody else.
pub unsafe trait Platform: Debug + Send + Sync {
    /// Memory that devices behind this platform can reach, or can be made to reach: where there is
    /// an IOMMU, each block is whole pages of it.
    fn dma(&self) -> Arc<dyn DmaAllocator>;

    /// Whether an IOMMU stands before an isolation unit.
    fn isolates(&self, _unit: &IsolationUnit) -> bool {
        false
    }

    /// An empty address space of its own for an isolation unit, if an IOMMU stands before it and
    /// has room. Asking changes nothing: the unit is in the domain from [`IommuDomain::enter`] until the
    /// domain is dropped.
    ///
    /// What the IOMMU refuses the unit afterwards is [reported to it](IsolationUnit::report_fault).
    fn isolate(&self, _unit: &Arc<IsolationUnit>) -> Option<Arc<dyn IommuDomain>> {
        None
    }

    /// Maps `len` bytes of device registers, uncached. The mapping lives as long as the returned
    /// value.
    ///
    /// # Errors
    /// [`MapError`], if the range is not one of device registers.
    ///
    /// # Safety
    /// The range is one of device registers that the caller owns.
    unsafe fn map_mmio(&self, base: PhysAddr, len: u64) -> Result<Arc<dyn Mmio>, MapError>;

    /// Takes a free interrupt vector and calls `handler` whenever its message arrives. `source` is
    /// who sends it; an IOMMU takes it from no other. Without one, the message is sent by what no
    /// IOMMU stands before.
    ///
    /// # Errors
    /// [`NoVector`], if none is free.
    fn allocate_vector(
        &self,
        source: Option<&IsolationUnit>,
        handler: Callback,
    ) -> Result<Box<dyn InterruptVector>, NoVector>;

    /// How many bytes simulated devices may still take: the budget that all of them draw on. The
    /// rest of what is free is for those who cannot do without.
    fn memory_left(&self) -> u64 {
        u64::MAX
    }

    /// Calls `handler` whenever the interrupt line is active, or becomes so, until the returned
    /// value is dropped.
    ///
    /// # Errors
    /// [`NoLine`], if there is no such line, or somebody has it.
    fn connect_line(
        &self,
        _line: InterruptLine,
        _handler: Callback,
    ) -> Result<Box<dyn ConnectedLine>, NoLine> {
        Err(NoLine)
    }

    /// The time since some fixed moment; it never goes back.
    fn now(&self) -> Duration;

    /// Ready once `duration` has passed.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs a task until it ends. `name` is for people.
    fn spawn(&self, name: &str, task: BoxFuture<'static, ()>);
}

/// An address space of an isolation unit, kept by an IOMMU. Once entered it is the only memory that
/// the unit reaches. When it has been dropped the unit reaches nothing, as before.
///
/// # Safety
/// An entered unit reaches what is mapped, where it is mapped, and nothing else. It uses nothing that
/// has been unmapped.
pub unsafe trait IommuDomain: Send + Sync {
    /// The addresses that the IOMMU translates.
    fn iova_ranges(&self) -> Vec<IovaRange>;

    /// Those among them that must not be mapped, such as where interrupt messages go, or what
    /// firmware uses.
    fn reserved(&self) -> Vec<IovaRange> {
        Vec::new()
    }

    /// Puts the unit into the domain.
    ///
    /// # Errors
    /// [`DomainError::OutOfResources`], if the IOMMU has no room for it: nothing has changed.
    fn enter(&self) -> Result<(), DomainError>;

    /// Makes changes one after the other, with one invalidation at the end: afterwards the unit
    /// uses nothing that has been taken away.
    ///
    /// # Errors
    /// [`DomainError`]: nothing has changed.
    fn change(&self, changes: &[DomainChange]) -> Result<(), DomainError>;
}

/// Why an IOMMU does not do what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DomainError {
    /// Something does not consist of whole pages, or a mapping would be cut inside one.
    #[error("not whole pages of the IOMMU")]
    Misaligned,
    /// There is no room for more.
    #[error("the IOMMU has no room for more")]
    OutOfResources,
    /// The IOMMU does not answer.
    #[error("the IOMMU did not answer in time")]
    Timeout,
    /// The IOMMU answers that it does not do this.
    #[error("the IOMMU refuses")]
    Refused,
}

impl From<DomainError> for OpError {
    fn from(error: DomainError) -> Self {
        match error {
            DomainError::Misaligned | DomainError::Refused => Self::Invalid,
            DomainError::OutOfResources => Self::OutOfResources,
            DomainError::Timeout => Self::Timeout,
        }
    }
}

/// A change of what an isolation unit reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainChange {
    /// It reaches the platform's memory at `addr` under `range`, which overlaps no other and is not
    /// reserved.
    Map {
        /// The addresses that the unit uses.
        range: IovaRange,
        /// What it may do.
        permission: Permission,
        /// Where the first of them leads.
        addr: DmaAddr,
    },
    /// A range is taken away. Mappings that reach beyond it keep the rest.
    Unmap(IovaRange),
}

/// A mapped range of device registers. Offsets are in bytes and must be aligned to the access.
///
/// An access outside the range reads all ones and writes nothing, as a removed device does.
///
/// Writing a register makes the device do what it stands for, and that may be to overwrite
/// memory; so safe code writes none:
///
/// ```compile_fail,E0133
/// fn attack(registers: &dyn vdpa::platform::Mmio) {
///     registers.write32(0x20, 0x1000);
/// }
/// ```
///
/// # Safety
/// No access reaches anything but registers in the range, and a [doorbell](Self::doorbell) keeps
/// them mapped.
pub unsafe trait Mmio: Debug + Send + Sync {
    /// The size of the range in bytes.
    fn len(&self) -> u64;

    /// Whether the range is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads one byte.
    fn read8(&self, offset: u64) -> u8;
    /// Reads two bytes, little-endian.
    fn read16(&self, offset: u64) -> u16;
    /// Reads four bytes, little-endian.
    fn read32(&self, offset: u64) -> u32;
    /// Writes one byte.
    ///
    /// # Safety
    /// What the device does for it touches no memory but what is lent to the device.
    unsafe fn write8(&self, offset: u64, value: u8);
    /// Writes two bytes, little-endian.
    ///
    /// # Safety
    /// As for [`write8`](Self::write8).
    unsafe fn write16(&self, offset: u64, value: u16);
    /// Writes four bytes, little-endian.
    ///
    /// # Safety
    /// As for [`write8`](Self::write8).
    unsafe fn write32(&self, offset: u64, value: u32);

    /// The notification register at `offset` for the queue of this index.
    /// `None`, if it does not lie inside the range or is not aligned.
    ///
    /// # Safety
    /// As for [`write8`](Self::write8), whatever is written there.
    unsafe fn doorbell(&self, offset: u64, index: u16, format: NotifyFormat) -> Option<Doorbell>;
}

/// An interrupt vector that this value owns. Once the value has been dropped the vector is free,
/// and its handler does not run any more: dropping waits for one that runs on another processor. A
/// handler drops no vector.
///
/// # Safety
/// The message raises the vector and does nothing else, as long as the value lives and after it.
pub unsafe trait InterruptVector: Debug + Send + Sync {
    /// What a device must write to raise it.
    fn message(&self) -> InterruptMessage;
}

/// An interrupt line of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptLine {
    /// Its number among all of the machine (a global system interrupt, on a PC).
    pub number: u32,
    /// How it says that there is something.
    pub signal: Signal,
}

/// How an interrupt line says that there is something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Nobody has said: as is usual for a line of this number.
    Unstated,
    /// It rises.
    Rising,
    /// It falls.
    Falling,
    /// It is high.
    High,
    /// It is low.
    Low,
}

/// An interrupt line that this value owns. Once the value has been dropped the handler does not run
/// any more. A handler drops no line.
pub trait ConnectedLine: Debug + Send + Sync {}

/// A message-signalled interrupt: the store that raises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptMessage {
    /// Where the device writes.
    pub address: u64,
    /// What it writes.
    pub data: u32,
}

/// The range cannot be mapped as device registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a range of device registers that can be mapped")]
pub struct MapError;

/// Every interrupt vector is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("every interrupt vector is taken")]
pub struct NoVector;

/// There is no such interrupt line, or somebody has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such interrupt line, or somebody has it")]
pub struct NoLine;
