//! Where memory that a client maps is for the platform's devices.

use virtq::DmaAddr;

use crate::ops::{Backing, OpError};

/// Where the platform's devices find the memory, which lies inside its allocation. What an arena
/// hands out is at addresses of anybody's choosing, with which no hardware must be told to
/// translate.
pub(super) fn platform_addr(backing: &Backing) -> Result<DmaAddr, OpError> {
    let start = backing.memory.platform_addr().ok_or(OpError::Invalid)?;
    Ok(DmaAddr(start.0.wrapping_add(backing.offset)))
}
