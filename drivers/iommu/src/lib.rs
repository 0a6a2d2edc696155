//! IOMMUs: what stands between devices and memory.
//!
//! An [`Iommu`] is one translation unit of the machine. It is on from the moment in which it is
//! made, and a device that is in no domain of it reaches nothing. [`Iommus`] is all of them: what
//! a kernel asks in its [`Platform::isolate`](vdpa::Platform::isolate).
//!
//! Nothing here knows PCI: an [`IsolationUnit`] says which requester ids its requests carry, and
//! which bridges they pass.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod amd;
mod changes;
mod hardware_table;
mod page_table;
mod set;
pub mod tables;
pub mod vtd;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::Debug;

use vdpa::dma::IsolationUnit;
use vdpa::platform::{InterruptMessage, IommuDomain};
use vdpa::tree::Report;

pub use set::Iommus;

/// Where a processor's local APIC takes the messages of interrupts, from the first address to the
/// last: what a device writes there is not translated, so that nothing can be mapped.
pub const MESSAGE_WINDOW: (u64, u64) = (0xfee0_0000, 0xfeef_ffff);

/// An IOMMU that is on: what is in no domain of it reaches nothing.
pub trait Iommu: Debug + Send + Sync {
    /// What people call it, such as `dmar0`.
    fn name(&self) -> String;

    /// Whether the requests of this unit pass through it.
    fn covers(&self, unit: &IsolationUnit) -> bool;

    /// An empty domain for the unit, which it covers. `None`, if there is no room for one.
    fn domain(&self, unit: &Arc<IsolationUnit>) -> Option<Arc<dyn IommuDomain>>;

    /// Whether it remaps the interrupts of this I/O APIC. It remaps those of the units that it
    /// covers, or none.
    fn covers_io_apic(&self, _id: u8) -> bool {
        false
    }

    /// Lets a source of interrupts raise this one, and no other than those that it was let raise.
    /// `None`, if the IOMMU does not remap interrupts.
    ///
    /// # Errors
    /// [`RemapError`].
    fn remap(
        &self,
        _source: InterruptSource<'_>,
        _interrupt: Interrupt,
    ) -> Option<Result<Box<dyn RemappedInterrupt>, RemapError>> {
        None
    }

    /// What it has and what it is doing, for people.
    fn report(&self) -> Report;
}

/// Who sends an interrupt.
#[derive(Clone, Copy, Debug)]
pub enum InterruptSource<'a> {
    /// A device, with a message.
    Unit(&'a IsolationUnit),
    /// An input of the I/O APIC of this id.
    IoApic(u8),
}

/// What an interrupt raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The vector.
    pub vector: u8,
    /// The id of the processor's local APIC.
    pub destination: u32,
    /// Whether the vector stays pending until the source's line is let go of.
    pub level: bool,
}

/// An interrupt that its source may raise, until the value is dropped.
pub trait RemappedInterrupt: Debug + Send + Sync {
    /// What a device writes to raise it.
    fn message(&self) -> InterruptMessage;

    /// What the redirection entry of an I/O APIC holds besides mask, trigger mode and polarity.
    fn redirection(&self) -> u64;
}

/// Why an interrupt cannot be remapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemapError {
    /// Every entry of the table is in use.
    #[error("every entry of the interrupt remapping table is in use")]
    NoEntry,
    /// The processor cannot be named.
    #[error("the IOMMU cannot name this processor")]
    Destination,
    /// The IOMMU does not answer.
    #[error("the IOMMU did not answer in time")]
    Timeout,
}
