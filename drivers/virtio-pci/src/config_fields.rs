//! The fields of the device-specific configuration.
//!
//! Each is read in its own width, and only where its feature is offered. Source: VIRTIO 1.2, 2.5.1
//! and 4.1.3.1.

use vdpa::config::{FieldLayout, blk, net};

/// The fields of a device of this type, if they are known.
pub(super) fn of(device_type: u32) -> Option<&'static [FieldLayout]> {
    match u8::try_from(device_type).map(virtio::Id::from) {
        Ok(virtio::Id::Net) => Some(net::FIELDS),
        Ok(virtio::Id::Block) => Some(blk::FIELDS),
        _ => None,
    }
}
