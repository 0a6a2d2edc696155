//! What every device to be made must comply with.
//!
//! Source: the checks of Linux in `drivers/vdpa/vdpa.c`, for `VDPA_CMD_DEV_NEW`.

use vdpa::Features;
use vdpa::bus::NAME_MAX;

use super::attributes::{AttributeSet, Attributes};
use super::error::MgmtError;
use super::manager::ManagementDevice;

/// The smallest IP MTU that a device may have (VIRTIO 1.2, 5.1.4.1).
const MTU_MIN: u16 = 68;
/// The bits whose meaning does not depend on the type of the device, as Linux divides them.
const TRANSPORT_FEATURES: Features = Features::from_bits(((1 << 14) - 1) << 28);

pub(super) fn check_name(name: &str) -> Result<(), MgmtError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(fits) {
        Ok(())
    } else {
        Err(MgmtError::BadName)
    }
}

/// Checks what can be judged without the management device.
pub(super) fn check_values(attributes: &Attributes) -> Result<(), MgmtError> {
    if attributes.mtu.is_some_and(|mtu| mtu < MTU_MIN) {
        return Err(MgmtError::MtuTooSmall);
    }
    if attributes.max_queue_pairs == Some(0) {
        return Err(MgmtError::NoQueuePairs);
    }
    if attributes.mac.is_some_and(|mac| !mac.is_unicast()) {
        return Err(MgmtError::NotUnicast);
    }
    let Some(features) = attributes.device_features else {
        return Ok(());
    };
    match needed_features(attributes).difference(features) {
        Features::EMPTY => Ok(()),
        missing => Err(MgmtError::MissingFeatures(missing)),
    }
}

/// The features by which a device shows its attributes to a driver.
fn needed_features(attributes: &Attributes) -> Features {
    let pairs = attributes.max_queue_pairs.unwrap_or(1);
    let queues = attributes.queues.unwrap_or(1);
    [
        (attributes.mac.is_some(), virtio::net::F::MAC.into()),
        (attributes.mtu.is_some(), virtio::net::F::MTU.into()),
        (pairs > 1, virtio::net::F::MQ.into()),
        (
            attributes.block_size.is_some(),
            virtio::blk::F::BLK_SIZE.into(),
        ),
        (queues > 1, virtio::blk::F::MQ.into()),
    ]
    .into_iter()
    .filter(|(needed, _)| *needed)
    .fold(Features::EMPTY, |all, (_, feature)| all.union(feature))
}

/// Checks whether the management device can make such a device.
pub(super) fn check_for(
    manager: &dyn ManagementDevice,
    attributes: &Attributes,
) -> Result<(), MgmtError> {
    let given = attributes.present();
    let makes = |class: virtio::Id| manager.classes().contains(&u32::from(u8::from(class)));
    for (class, own) in [
        (virtio::Id::Net, AttributeSet::NET),
        (virtio::Id::Block, AttributeSet::BLK),
    ] {
        let foreign = given.intersection(own);
        if !foreign.is_empty() && !makes(class) {
            return Err(MgmtError::WrongClass(foreign));
        }
    }
    let unsupported = given.difference(manager.attributes());
    if !unsupported.is_empty() {
        return Err(MgmtError::UnsupportedAttributes(unsupported));
    }
    if let Some(features) = attributes.device_features {
        check_features(manager, features, given)?;
    }
    check_queues(manager, attributes)
}

fn check_features(
    manager: &dyn ManagementDevice,
    features: Features,
    given: AttributeSet,
) -> Result<(), MgmtError> {
    let of_a_type = features.difference(TRANSPORT_FEATURES);
    let says_which = given.intersects(AttributeSet::NET.union(AttributeSet::BLK));
    if of_a_type != Features::EMPTY && manager.classes().len() > 1 && !says_which {
        return Err(MgmtError::Ambiguous(of_a_type));
    }
    match features.difference(manager.features()) {
        Features::EMPTY => Ok(()),
        unknown => Err(MgmtError::UnknownFeatures(unknown)),
    }
}

fn check_queues(manager: &dyn ManagementDevice, attributes: &Attributes) -> Result<(), MgmtError> {
    // With several pairs comes a control queue (VIRTIO 1.2, 5.1.2).
    let of_pairs = attributes
        .max_queue_pairs
        .map_or(0, |pairs| 2 * u32::from(pairs) + u32::from(pairs > 1));
    let queues = of_pairs.max(attributes.queues.map_or(0, u32::from));
    if queues > manager.max_queues() {
        return Err(MgmtError::TooManyQueues(manager.max_queues()));
    }
    Ok(())
}
