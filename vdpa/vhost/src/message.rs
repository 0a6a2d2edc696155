//! What a client says about its memory.
//!
//! Source: `struct vhost_iotlb_msg` of Linux's `vhost_types.h`. Nothing is ever missing here: a
//! client maps in advance, so the types `MISS` and `ACCESS_FAIL` do not exist.

use vdpa::iotlb::Permission;
use virtq::DeviceMemory;

/// A change of what the device can reach, or the frame of several such changes.
///
/// Inside a batch every message still answers for itself; one that fails has changed nothing. The
/// end of the batch may fail too: then nothing of the batch has happened.
#[derive(Clone, Debug)]
pub enum IotlbMessage {
    /// Lets the device reach memory at an address.
    Update {
        /// The address space; other than 0 only with `IOTLB_ASID`.
        asid: u16,
        /// Where the device finds it.
        iova: u64,
        /// How much of it, in bytes.
        size: u64,
        /// The memory, which lives at least as long as it is mapped.
        memory: DeviceMemory,
        /// Where in the memory the mapping starts, in bytes.
        offset: u64,
        /// What the device may do with it.
        permission: Permission,
    },
    /// Takes a range away from the device. A mapping that reaches beyond the range keeps the rest,
    /// and that nothing is mapped there is no error. The device may go on with what it has begun
    /// until the address space has [settled](super::VhostHandle::settle).
    Invalidate {
        /// The address space.
        asid: u16,
        /// Where the range starts.
        iova: u64,
        /// How long it is, in bytes; never 0.
        size: u64,
    },
    /// What follows, up to the end of the batch, takes effect at once and concerns this address
    /// space alone.
    BatchBegin {
        /// The address space.
        asid: u16,
    },
    /// The batch is complete.
    BatchEnd {
        /// The address space.
        asid: u16,
    },
}
