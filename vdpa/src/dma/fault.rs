//! What an IOMMU says of accesses that it has refused.

use core::fmt;

use crate::iotlb::Permission;

/// An access to memory that an IOMMU has refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaFault {
    /// The address that the device has used.
    pub addr: u64,
    /// What it wanted to do there, as far as the IOMMU says.
    pub access: Permission,
    /// Why it was refused.
    pub kind: DmaFaultKind,
}

/// Why an access was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DmaFaultKind {
    /// Nothing is mapped there.
    #[error("nothing is mapped there")]
    NotMapped,
    /// What is mapped there does not permit it.
    #[error("the mapping does not permit it")]
    NotPermitted,
    /// Something that the IOMMU alone understands.
    #[error("the IOMMU refuses it")]
    Other,
}

/// The refused accesses of a device, or of one owner of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DmaFaults {
    /// How many there were, as far as the IOMMU has kept count.
    pub count: u64,
    /// The last one.
    pub last: Option<DmaFault>,
}

impl DmaFaults {
    /// Those that are not among `earlier`.
    #[must_use]
    pub(crate) fn since(self, earlier: u64) -> Self {
        let count = self.count - earlier;
        Self {
            count,
            last: self.last.filter(|_| count > 0),
        }
    }
}

impl fmt::Display for DmaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.access.contains(Permission::WRITE) {
            "write to"
        } else if self.access.contains(Permission::READ) {
            "read of"
        } else {
            "access to"
        };
        write!(f, "{access} {:#x}: {}", self.addr, self.kind)
    }
}

/// For the device tree.
impl fmt::Display for DmaFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            None => write!(f, "{}", self.count),
            Some(last) => write!(f, "{}, the last a {last}", self.count),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn an_access_is_called_what_the_iommu_says_of_it() {
        for (access, words) in [
            (Permission::READ, "read of 0x1000"),
            (Permission::WRITE, "write to 0x1000"),
            (Permission::empty(), "access to 0x1000"),
        ] {
            let (addr, kind) = (0x1000, DmaFaultKind::NotMapped);
            let fault = DmaFault { addr, access, kind };
            assert!(fault.to_string().starts_with(words), "{fault}");
        }
    }
}
