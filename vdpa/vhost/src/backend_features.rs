//! What client and shim agree on besides the virtio features.
//!
//! Source: `VHOST_BACKEND_F_*` of Linux's `vhost_types.h`.

use bitflags::bitflags;
use vdpa::device::VdpaDevice;
use vdpa::dma::Isolation;
use vdpa::ops::Abilities;

use super::VhostError;

bitflags! {
    /// The features of the protocol. What is not offered cannot be acknowledged.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct BackendFeatures: u64 {
        /// Messages have the second format, which knows address spaces. Always offered.
        const IOTLB_MSG_V2 = 1 << 1;
        /// Messages can be put together to a batch. Always offered.
        const IOTLB_BATCH = 1 << 2;
        /// Messages can name an address space other than 0. Always offered.
        const IOTLB_ASID = 1 << 3;
        /// The device can be suspended.
        const SUSPEND = 1 << 4;
        /// The device can be resumed.
        const RESUME = 1 << 5;
        /// Queues can be enabled after `DRIVER_OK`.
        const ENABLE_AFTER_DRIVER_OK = 1 << 6;
        /// A queue's rings can be in another address space than its buffers. Needs `IOTLB_ASID`.
        const DESC_ASID = 1 << 7;
        /// What is mapped survives a reset. Unless it is acknowledged, nothing does.
        const IOTLB_PERSIST = 1 << 8;
    }
}

impl BackendFeatures {
    /// What can be had with this device.
    pub(super) fn of(device: &VdpaDevice) -> Self {
        let abilities = device.abilities();
        let has = |ability, feature| {
            if abilities.contains(ability) {
                feature
            } else {
                Self::empty()
            }
        };
        let mut offered = Self::IOTLB_MSG_V2 | Self::IOTLB_BATCH | Self::IOTLB_ASID;
        offered |= has(Abilities::SUSPEND, Self::SUSPEND);
        offered |= has(Abilities::RESUME, Self::RESUME);
        offered |= has(
            Abilities::ENABLE_AFTER_DRIVER_OK,
            Self::ENABLE_AFTER_DRIVER_OK,
        );
        offered |= has(Abilities::PERSISTENT_MAPS, Self::IOTLB_PERSIST);
        if device.isolation() != Isolation::OnChip {
            // What the platform translates is no business of the device's reset.
            offered |= Self::IOTLB_PERSIST;
        }
        let splits = |queue| matches!(device.descriptor_group(queue), Ok(Some(_)));
        if (0..device.queue_count()).any(splits) {
            offered |= Self::DESC_ASID;
        }
        offered
    }

    /// Whether the client may acknowledge these.
    ///
    /// # Errors
    /// [`VhostError::Unsupported`], if one is not offered; [`VhostError::Invalid`], if one needs
    /// another.
    pub(super) fn check(self, offered: Self) -> Result<(), VhostError> {
        if !offered.contains(self) {
            return Err(VhostError::Unsupported);
        }
        if self.contains(Self::DESC_ASID) && !self.contains(Self::IOTLB_ASID) {
            return Err(VhostError::Invalid);
        }
        Ok(())
    }
}
