//! A log of the memory that the device side has written, for live migration.

use alloc::sync::Arc;

use crate::DmaAddr;

/// Learns of every range of the driver's memory that the device side writes: payload, used entries,
/// indices and event suppression. `()` keeps no log and costs nothing.
pub trait DirtyLog {
    /// `len` bytes from `addr` on were written, just before this call. The address is the one that
    /// the driver used, before any translation; the range lies in one mapping.
    fn written(&self, addr: DmaAddr, len: u32);
}

impl DirtyLog for () {
    #[inline]
    fn written(&self, _addr: DmaAddr, _len: u32) {}
}

impl<L: DirtyLog + ?Sized> DirtyLog for &L {
    fn written(&self, addr: DmaAddr, len: u32) {
        (**self).written(addr, len);
    }
}

impl<L: DirtyLog + ?Sized> DirtyLog for Arc<L> {
    fn written(&self, addr: DmaAddr, len: u32) {
        (**self).written(addr, len);
    }
}
