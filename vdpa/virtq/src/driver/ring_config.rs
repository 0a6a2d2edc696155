//! What a ring is made from.

use alloc::sync::Arc;

use super::DeviceHold;
use super::memory::{Format, IndirectTables};
use crate::format::RingFeatures;
use crate::{DmaAllocator, DmaError};

/// What a ring is made from, checked.
pub(super) struct RingConfig {
    pub(super) size: u16,
    pub(super) align: usize,
    pub(super) features: RingFeatures,
    /// Entries of each indirect table; 0 for none.
    pub(super) table_len: u16,
}

impl RingConfig {
    pub(super) fn tables(
        &self,
        format: Format,
        dma: &Arc<dyn DmaAllocator>,
        hold: &Arc<DeviceHold>,
    ) -> Result<Option<IndirectTables>, DmaError> {
        if self.table_len == 0 {
            return Ok(None);
        }
        IndirectTables::new(format, self.size, self.table_len, dma, hold).map(Some)
    }
}
