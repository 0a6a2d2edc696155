//! Memory whose addresses are offsets into regions that the host has mapped for good: a guest's
//! RAM, or the memory of the program itself.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;

use super::memory::{Access, Fault, Memory, Piece};
use crate::DmaAddr;

/// A range of the driver's addresses and where the host has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first address for the driver.
    pub addr: DmaAddr,
    /// The same byte on the host.
    pub ptr: NonNull<u8>,
    /// The length in bytes.
    pub len: usize,
}

/// Two regions share an address, or one runs over the end of the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("regions overlap or wrap")]
pub struct OverlapError;

/// Regions that stay as they are.
#[derive(Debug)]
pub struct Direct {
    /// In the order of their addresses.
    regions: Box<[Region]>,
}

// SAFETY: the creator has promised that the memory may be used from any thread.
unsafe impl Send for Direct {}
// SAFETY: likewise; `Direct` itself is not changed after its creation.
unsafe impl Sync for Direct {}

impl Direct {
    /// Memory that consists of `regions`.
    ///
    /// # Errors
    /// [`OverlapError`].
    ///
    /// # Safety
    /// Each region must be valid for reads and writes of its length, on any thread, as long as the
    /// value lives, and no reference of Rust may cover it while a queue uses it.
    pub unsafe fn new(mut regions: Vec<Region>) -> Result<Self, OverlapError> {
        regions.retain(|region| region.len > 0);
        regions.sort_by_key(|region| region.addr);
        let mut free = 0u128;
        for region in &regions {
            let start = u128::from(region.addr.0);
            // A length is at most 64 bits, so the sum is exact.
            let end = start + region.len as u128;
            if start < free || end > 1 << 64 {
                return Err(OverlapError);
            }
            free = end;
        }
        Ok(Self {
            regions: regions.into(),
        })
    }
}

// SAFETY: a piece lies inside a region, which the creator has promised to be valid, because the
// offset is below the region's length and the length is cut at the region's end.
unsafe impl Memory for Direct {
    #[inline]
    fn translate(&self, addr: DmaAddr, len: u32, _access: Access) -> Result<Piece, Fault> {
        for region in &self.regions {
            let offset = addr.0.wrapping_sub(region.addr.0);
            let size = region.len as u64;
            if offset < size {
                let left = u32::try_from(size - offset).unwrap_or(u32::MAX);
                let offset = usize::try_from(offset).expect("below a usize");
                // SAFETY: the offset lies inside the region.
                let ptr = unsafe { region.ptr.add(offset) };
                return Ok(Piece {
                    addr,
                    ptr,
                    len: len.min(left),
                });
            }
        }
        Err(Fault::NoMapping)
    }
}
