//! What a function tells of itself before anybody drives it, asked in the order that the
//! specification demands: nothing is written to a device that has not been acknowledged, and queues
//! are looked for when the features are settled. Afterwards the device is as a reset leaves it.
//!
//! Source: VIRTIO 1.2, 2.1, 2.2 and 3.1.1.

use alloc::sync::Arc;
use alloc::vec::Vec;

use vdpa::bus::ProbeError;
use vdpa::ops::{NotificationArea, OpError};
use vdpa::{Features, Platform};
use virtio::DeviceStatus;

use pci::Msix;

use super::deadline::wait;
use super::demands::Demands;
use super::function::VirtioFunction;
use super::queue_state::QueueFacts;
use super::unsuitable::Unsuitable;

/// More queues than this are left alone: nobody has use for them, and each costs memory.
const QUEUES_MAX: u16 = 1024;

/// What has been found.
pub(super) struct Discovery {
    /// What the function offers.
    pub(super) offered: Features,
    /// Of that, what its driver may use.
    pub(super) features: Features,
    pub(super) queues: Vec<QueueFacts>,
    /// The start of its configuration.
    pub(super) config: Vec<u8>,
}

/// Resets the function, which stops whatever firmware left running, looks at it, and resets it
/// again. One that cannot be used is told so (VIRTIO 1.2, 2.2.1).
pub(super) async fn discover(
    virtio: &VirtioFunction,
    platform: &dyn Platform,
    demands: &Demands,
    msix: Option<&Msix>,
) -> Result<Discovery, ProbeError> {
    reset(virtio, platform).await?;
    let found = look(virtio, demands, msix);
    match &found {
        Ok(_) => reset(virtio, platform).await?,
        Err(_) => {
            let common = virtio.common();
            if let Some(status) = common.status() {
                common.set_status(status | DeviceStatus::FAILED);
            }
        }
    }
    found
}

fn look(
    virtio: &VirtioFunction,
    demands: &Demands,
    msix: Option<&Msix>,
) -> Result<Discovery, ProbeError> {
    let common = virtio.common();
    let driver = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    common.set_status(DeviceStatus::ACKNOWLEDGE);
    common.set_status(driver);
    let offered = common.device_features();
    let features = usable_features(virtio, offered);
    if !features.contains(virtio::F::VERSION_1) {
        return Err(ProbeError::unsuitable(Unsuitable::NoVersion1));
    }
    if !features.contains(demands.features) {
        return Err(ProbeError::unsuitable(Unsuitable::NoAccessPlatform));
    }
    let least = virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM;
    common.set_driver_features(features.intersection(least.into()), offered);
    common.set_status(driver | DeviceStatus::FEATURES_OK);
    // A device that insists on more shows its queues all the same: who drives it will agree on
    // more.
    if common.status().is_none() {
        return Err(ProbeError::Device(OpError::Gone));
    }
    Ok(Discovery {
        offered,
        features,
        queues: queue_facts(virtio, msix)?,
        config: virtio
            .copy_config(demands.device_type, offered)
            .unwrap_or_default(),
    })
}

/// VIRTIO 1.2, 4.1.4.3.2: after writing 0 the driver waits until it reads 0.
pub(super) async fn reset(virtio: &VirtioFunction, platform: &dyn Platform) -> Result<(), OpError> {
    virtio.common().set_status(DeviceStatus::empty());
    wait(platform, &|| match virtio.common().status() {
        None => Some(Err(OpError::Gone)),
        Some(status) if status.is_empty() => Some(Ok(())),
        Some(_) => None,
    })
    .await
}

/// What the function offers, less what changes how queues are notified beyond what a doorbell can
/// say, or needs more than one function.
fn usable_features(virtio: &VirtioFunction, offered: Features) -> Features {
    let not_for_us = virtio::F::NOTIF_CONFIG_DATA | virtio::F::ADMIN_VQ | virtio::F::SR_IOV;
    let mut features = offered.difference(Features::from(not_for_us | virtio::F::SUSPEND));
    if offered.contains(virtio::F::SUSPEND) {
        // A resume kicks the device's queues, without knowing where their drivers stand.
        features = features.difference(Features::from(virtio::F::NOTIFICATION_DATA));
    }
    if !virtio.common().has_queue_reset() {
        features = features.difference(Features::from(virtio::F::RING_RESET));
    }
    features
}

/// Reads what every queue is. The queues end with the first that does not exist.
fn queue_facts(
    virtio: &VirtioFunction,
    msix: Option<&Msix>,
) -> Result<Vec<QueueFacts>, ProbeError> {
    let count = virtio.common().num_queues();
    if count == u16::MAX {
        return Err(ProbeError::Device(OpError::Gone));
    }
    let mut queues = Vec::new();
    for index in 0..count.min(QUEUES_MAX) {
        let queue = virtio.common().queue(index);
        let (size_max, notify_off) = (queue.size(), queue.notify_off());
        drop(queue);
        if size_max == 0 {
            break;
        }
        queues.push(QueueFacts {
            size_max,
            notify_off,
            page: None,
            interrupts: Arc::default(),
        });
    }
    let pages = free_pages(virtio, &queues, msix);
    for (queue, page) in queues.iter_mut().zip(pages) {
        queue.page = page;
    }
    if queues.is_empty() {
        return Err(ProbeError::unsuitable(Unsuitable::NoQueue));
    }
    Ok(queues)
}

/// The doorbell pages of the queues that have one for themselves.
fn free_pages(
    virtio: &VirtioFunction,
    queues: &[QueueFacts],
    msix: Option<&Msix>,
) -> Vec<Option<NotificationArea>> {
    let page = |(index, queue): (usize, &QueueFacts)| {
        let others = queues.iter().enumerate();
        let others = others.filter(|(other, _)| *other != index);
        let offsets = others.map(|(_, other)| other.notify_off);
        virtio.notification_page(queue.notify_off, offsets, msix)
    };
    queues.iter().enumerate().map(page).collect()
}
