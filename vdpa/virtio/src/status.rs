//! The status of a device that runs (VIRTIO 1.2, 2.1).

use virtio::DeviceStatus;

/// What a driver has set once its device works.
pub(super) const RUNNING: DeviceStatus = DeviceStatus::ACKNOWLEDGE
    .union(DeviceStatus::DRIVER)
    .union(DeviceStatus::FEATURES_OK)
    .union(DeviceStatus::DRIVER_OK);
