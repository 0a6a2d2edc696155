//! Who may let a device reach which memory, and at which addresses.
//!
//! The user of a device takes an [`Attachment`](crate::device::Attachment): the right to change
//! what the device can reach, which changes hands only while the device is as a reset has left it.
//! What stands between the device and the memory (a translation of its own, the platform's IOMMU,
//! or nothing) is an [`Isolation`], and the attachment hides which: the same calls serve all three.
//!
//! Kernel drivers do not map; they allocate from a [`DmaSpace`], which can be moved from device to
//! device. Software devices keep what was mapped for them in an [`AddressSpace`].

mod address_space;
mod fault;
mod iova;
mod iova_space;
mod shared_domain;
mod space;
mod unit;
mod vouched;

use core::fmt;

use crate::backing::Backing;
use crate::error::OpError;
use crate::iotlb::{IovaRange, Permission};

pub use self::address_space::AddressSpace;
pub use self::fault::{DmaFault, DmaFaultKind, DmaFaults};
pub use self::iova_space::IovaSpace;
pub use self::space::DmaSpace;
pub(crate) use self::unit::Claim;
pub use self::unit::IsolationUnit;
pub use self::vouched::Vouched;

/// Whose a device's address spaces are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The kernel, which trusts its own drivers.
    Kernel,
    /// One client, who is trusted with nothing but the memory that it has mapped.
    Client,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "the kernel",
            Self::Client => "a client",
        })
    }
}

/// What keeps a device away from memory that was not mapped for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The device, which translates its addresses itself.
    OnChip,
    /// The platform's IOMMU.
    Iommu,
    /// Nothing: it reaches all memory.
    None,
}

/// Whether a client may own a device that nothing keeps away from foreign memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It may not.
    Isolated,
    /// It may, and could read and overwrite all memory through the device.
    NoIommu(Vouched),
}

impl Trust {
    /// A client may own a device that nothing isolates.
    ///
    /// ```compile_fail,E0133
    /// let attack = vdpa::dma::Trust::unsafe_no_iommu();
    /// ```
    ///
    /// # Safety
    /// The client gives such a device no address, in rings or in descriptors, but that of memory
    /// which it has to itself for as long as the device may use it.
    #[must_use]
    pub const unsafe fn unsafe_no_iommu() -> Self {
        Self::NoIommu(Vouched(()))
    }
}

/// Which addresses a device uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// Any, which are translated.
    Translated,
    /// Those of the platform: memory can be mapped only where it lies.
    Platform,
}

/// An address space that memory can be mapped in: of a device, or of a client's device.
///
/// Calls come from where memory is allocated, so they do not wait.
///
/// ```compile_fail,E0200
/// # use vdpa::{dma::*, iotlb::*, ops::*};
/// struct Attack;
/// impl MapTarget for Attack {
///     fn addressing(&self) -> Addressing { Addressing::Translated }
///     fn iova_space(&self) -> IovaSpace { IovaRange::ALL.into() }
///     fn map(&self, _: IovaRange, _: Permission, _: Backing) -> Result<(), OpError> { Ok(()) }
///     fn unmap(&self, _: IovaRange) -> Result<(), OpError> { Ok(()) }
/// }
/// ```
///
/// # Safety
/// What is mapped is mapped for a device alone whose rings are vouched for, by
/// [`VdpaClaim::set_queue_address`](crate::device::VdpaClaim::set_queue_address).
pub unsafe trait MapTarget: Send + Sync {
    /// Which addresses it takes.
    fn addressing(&self) -> Addressing;

    /// The addresses that it has.
    fn iova_space(&self) -> IovaSpace;

    /// Lets the device reach memory at `range`.
    ///
    /// # Errors
    /// As for [`Attachment::map`](crate::device::Attachment::map): nothing has changed.
    fn map(
        &self,
        range: IovaRange,
        permission: Permission,
        backing: Backing,
    ) -> Result<(), OpError>;

    /// Takes a range away from the device.
    ///
    /// # Errors
    /// As for [`Attachment::unmap`](crate::device::Attachment::unmap): nothing has changed.
    fn unmap(&self, range: IovaRange) -> Result<(), OpError>;

    /// Several changes follow, which may be told to the device together.
    ///
    /// # Errors
    /// As for [`Attachment::begin_batch`](crate::device::Attachment::begin_batch).
    fn begin_batch(&self) -> Result<(), OpError> {
        Ok(())
    }

    /// The changes since [`begin_batch`](Self::begin_batch) are complete.
    ///
    /// # Errors
    /// As for [`Attachment::end_batch`](crate::device::Attachment::end_batch): all that had not
    /// been told has been taken back.
    fn end_batch(&self) -> Result<(), OpError> {
        Ok(())
    }
}
