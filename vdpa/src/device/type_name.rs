//! Names of device types.

use alloc::borrow::Cow;
use alloc::format;

/// What people call the device type (VIRTIO 1.2, section 5).
#[must_use]
pub fn type_name(device_type: u32) -> Cow<'static, str> {
    match u8::try_from(device_type).map(virtio::Id::from) {
        Ok(virtio::Id::Net) => "network".into(),
        Ok(virtio::Id::Block) => "block".into(),
        Ok(virtio::Id::Unknown(_)) | Err(_) => format!("type {device_type}").into(),
        Ok(other) => format!("{other:?}").to_ascii_lowercase().into(),
    }
}
