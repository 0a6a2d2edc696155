//! The memory behind a mapping.

use virtq::DeviceMemory;

use crate::iotlb::Target;

/// Memory behind a mapping: where in which allocation it starts.
#[derive(Clone, Debug)]
pub struct Backing {
    /// The allocation, which lives at least as long as the mapping.
    pub memory: DeviceMemory,
    /// Where the mapping starts in it, in bytes.
    pub offset: u64,
}

impl Target for Backing {
    fn advance(&self, by: u64) -> Self {
        Self {
            memory: self.memory.clone(),
            offset: self.offset.saturating_add(by),
        }
    }
}
