//! Why an IOMMU is not driven, and why it did not do what was asked.

use vdpa::platform::DomainError;

use crate::request::Status;

/// Why the driver cannot drive a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// It is of another type.
    #[error("not an IOMMU")]
    Type,
    /// It has no page size.
    #[error("the IOMMU has no page size")]
    PageSize,
    /// There is no whole page among the addresses that it translates.
    #[error("the IOMMU translates no whole page")]
    InputRange,
    /// There is no domain.
    #[error("the IOMMU has no domains")]
    DomainRange,
    /// What it says of an endpoint is larger than anybody needs.
    #[error("the IOMMU wants a buffer of {0} bytes for the properties of an endpoint")]
    ProbeSize(u32),
    /// Who is in no domain reaches everything, and goes on doing so.
    #[error("the IOMMU does not stop what bypasses it")]
    Bypass,
}

/// Why one request was not carried out. Others may have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The IOMMU says so.
    #[error("the IOMMU answers {0:?}")]
    Status(Status),
    /// The answer does not say what became of it.
    #[error("the IOMMU returned a request without an answer")]
    Unanswered,
}

impl Refusal {
    /// Whether the request may have been carried out nevertheless, in part or as a whole.
    pub(crate) fn is_doubtful(self) -> bool {
        match self {
            Self::Status(status) => matches!(
                status,
                Status::IoError | Status::DeviceError | Status::Fault
            ),
            Self::Unanswered => true,
        }
    }
}

impl From<Refusal> for DomainError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Status(Status::NoMemory) => Self::OutOfResources,
            Refusal::Status(_) | Refusal::Unanswered => Self::Refused,
        }
    }
}

/// Why an IOMMU is not asked any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Dead {
    /// A request has not come back.
    #[error("it did not answer in time")]
    Silent,
    /// A queue is broken.
    #[error("it broke the protocol")]
    Broken,
    /// It is gone, or was broken before.
    #[error("it is gone")]
    Gone,
    /// It does not say whether an endpoint can still reach memory.
    #[error("it does not let go of memory")]
    Unconfirmed,
}

impl From<Dead> for DomainError {
    fn from(_: Dead) -> Self {
        Self::Timeout
    }
}
