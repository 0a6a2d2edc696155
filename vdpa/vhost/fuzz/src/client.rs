//! What clients of vhost have in common: what they may have, how their device is started, and what is
//! in their memory.

use std::sync::Arc;

use vdpa::Features;
use vhost_vdpa::{OpenOptions, VhostError, VhostHandle};
use virtio::DeviceStatus;
use virtq::{Event, SharedMemory};

use super::requests;
use super::rings::LEN;

/// A few pages more than the client has, and few mappings: both run out.
pub const OPTIONS: OpenOptions = OpenOptions {
    version: vhost_vdpa::VERSION,
    quota: LEN + LEN / 4,
    mappings: 6,
    trust: vdpa::dma::Trust::Isolated,
};

/// All that it takes to have the queues served.
pub async fn start(
    handle: &VhostHandle,
    features: Features,
    event: &Arc<Event>,
) -> Result<(), VhostError> {
    handle.set_status(DeviceStatus::empty()).await?;
    let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    handle.set_status(status).await?;
    handle.set_features(features)?;
    status |= DeviceStatus::FEATURES_OK;
    handle.set_status(status).await?;
    for queue in 0..handle.queue_count() {
        handle.set_vring_num(queue, 16)?;
        handle.set_vring_addr(queue, requests::place(queue))?;
        handle.set_vring_call(queue, Some(Arc::clone(event)))?;
        handle.enable_vring(queue).await?;
    }
    handle.set_status(status | DeviceStatus::DRIVER_OK).await
}

/// All that is in the client's memory.
pub fn contents(memory: &SharedMemory) -> Vec<u8> {
    let mut bytes = vec![0; LEN as usize];
    memory.read(0, &mut bytes).expect("as long as the memory");
    bytes
}
