//! What both sides of a queue know of its format: flags, features, places, and where a queue
//! stands.

use crate::DmaAddr;

/// The size of a descriptor in bytes, in a split ring, a packed ring and an indirect table.
pub(crate) const DESCRIPTOR: usize = 16;

/// The buffer goes on in the next descriptor.
pub(crate) const F_NEXT: u16 = 1;
/// The device writes the buffer.
pub(crate) const F_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub(crate) const F_INDIRECT: u16 = 4;
/// Packed ring: the driver's wrap counter when the descriptor was made available.
pub(crate) const F_AVAIL: u16 = 1 << 7;
/// Packed ring: the device's wrap counter when the descriptor was used; until then its inverse.
pub(crate) const F_USED: u16 = 1 << 15;

/// Split ring, available ring's flags: the driver wants no interrupt.
pub(crate) const AVAIL_F_NO_INTERRUPT: u16 = 1;
/// Split ring, used ring's flags: the device wants no notification.
pub(crate) const USED_F_NO_NOTIFY: u16 = 1;

/// Packed ring, event flags: tell me of everything.
pub(crate) const EVENT_F_ENABLE: u16 = 0;
/// Packed ring, event flags: tell me of nothing.
pub(crate) const EVENT_F_DISABLE: u16 = 1;
/// Packed ring, event flags: tell me of one descriptor.
pub(crate) const EVENT_F_DESC: u16 = 2;

/// The largest size of a queue (VIRTIO 1.2, 2.7 and 2.8).
pub(crate) const SIZE_MAX: u16 = 32768;

/// What driver and device have agreed on that changes the ring.
///
/// Further features may come. So it is made from [`RingFeatures::NONE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingFeatures {
    /// `VIRTIO_F_RING_PACKED`: one ring of descriptors that both sides write, instead of three.
    pub packed: bool,
    /// `VIRTIO_F_EVENT_IDX`: notifications and interrupts by index instead of by flag.
    pub event_idx: bool,
    /// `VIRTIO_F_INDIRECT_DESC`: a chain may take one descriptor that names a table of the others.
    pub indirect: bool,
    /// `VIRTIO_F_IN_ORDER`: the device uses chains in the order in which they became available.
    pub in_order: bool,
}

impl RingFeatures {
    /// A split ring without anything that has to be negotiated.
    pub const NONE: Self = Self {
        packed: false,
        event_idx: false,
        indirect: false,
        in_order: false,
    };

    /// With `VIRTIO_F_RING_PACKED`, or without.
    #[must_use]
    pub const fn with_packed(mut self, packed: bool) -> Self {
        self.packed = packed;
        self
    }

    /// With `VIRTIO_F_EVENT_IDX`, or without.
    #[must_use]
    pub const fn with_event_idx(mut self, event_idx: bool) -> Self {
        self.event_idx = event_idx;
        self
    }

    /// With `VIRTIO_F_INDIRECT_DESC`, or without.
    #[must_use]
    pub const fn with_indirect(mut self, indirect: bool) -> Self {
        self.indirect = indirect;
        self
    }

    /// With `VIRTIO_F_IN_ORDER`, or without.
    #[must_use]
    pub const fn with_in_order(mut self, in_order: bool) -> Self {
        self.in_order = in_order;
        self
    }
}

/// Where the parts of a ring lie, for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor area: the descriptor table, or the packed ring.
    pub descriptor: DmaAddr,
    /// Driver area: the available ring, or the driver's event suppression.
    pub driver: DmaAddr,
    /// Device area: the used ring, or the device's event suppression.
    pub device: DmaAddr,
}

/// Where a queue stands while no chain is with the device: enough to go on with it elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingState {
    /// A split queue: the index of the next available and of the next used entry.
    Split {
        /// Next index, modulo 2^16.
        index: u16,
    },
    /// A packed queue: the place of the next available and of the next used descriptor.
    Packed {
        /// The next descriptor.
        index: u16,
        /// The wrap counter there.
        wrap: bool,
    },
}

impl RingState {
    /// Where a new queue starts.
    #[must_use]
    pub fn start(features: RingFeatures) -> Self {
        if features.packed {
            Self::Packed {
                index: 0,
                wrap: true,
            }
        } else {
            Self::Split { index: 0 }
        }
    }
}

/// Whether going from `old` to `new` passes `event`, modulo 2^16 (VIRTIO 1.2, 2.7.10.1).
#[inline]
pub(crate) fn crossed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
