//! What is left of a device when it has been removed.

use alloc::format;

use virtio::DeviceStatus;

use crate::device::{AttachError, Removed};
use crate::dma::{Owner, Trust};
use crate::ops::{OpError, QueueState};

use super::bench::{Bench, Format, place_nowhere};
use super::rig::Rig;
use super::verdict::{Verdict, checks, equal};

checks! {
    "a device that runs is removed in order" => running,
    "every operation says afterwards that it is gone" => gone,
}

async fn running(bench: &Bench<'_>) -> Verdict {
    let rig = Rig::start(bench, Format::Split).await?;
    equal("the removal", &bench.remove().await, &Removed::Clean)?;
    rig.released();
    Ok(())
}

async fn gone(bench: &Bench<'_>) -> Verdict {
    bench.agree(Format::Split).await?;
    equal("the removal", &bench.remove().await, &Removed::Clean)?;
    let device = &bench.device;
    let start = QueueState::Split { avail_index: 0 };
    let answers = [
        ("reset", device.reset().await),
        ("status", device.status().map(drop)),
        (
            "set_status",
            device.set_status(DeviceStatus::ACKNOWLEDGE).await,
        ),
        ("device_features", device.device_features().map(drop)),
        ("driver_features", device.driver_features().map(drop)),
        (
            "set_driver_features",
            device.set_driver_features(virtio::F::VERSION_1.into()),
        ),
        ("suspend", device.suspend().await),
        ("resume", device.resume().await),
        ("is_suspended", device.is_suspended().map(drop)),
        ("config_size", device.config_size().map(drop)),
        ("config_generation", device.config_generation().map(drop)),
        ("read_config", device.read_config(0, &mut [0])),
        ("write_config", device.write_config(0, &[0])),
        ("set_config_callback", device.set_config_callback(None)),
        ("queue_size_limits", device.queue_size_limits(0).map(drop)),
        ("queue_size", device.queue_size(0).map(drop)),
        ("set_queue_size", device.set_queue_size(0, 2)),
        ("set_queue_address", place_nowhere(device)),
        ("set_queue_state", device.set_queue_state(0, start)),
        ("queue_state", device.queue_state(0).await.map(drop)),
        ("set_queue_callback", device.set_queue_callback(0, None)),
        ("start_queue", device.start_queue(0).await),
        ("stop_queue", device.stop_queue(0).await),
        ("queue_ready", device.queue_ready(0).map(drop)),
        ("doorbell", device.doorbell(0).map(drop)),
        ("notification_area", device.notification_area(0).map(drop)),
        ("queue_interrupt", device.queue_interrupt(0).map(drop)),
        ("queue_statistics", device.queue_statistics(0).map(drop)),
        ("queue_group", device.queue_group(0).map(drop)),
        ("descriptor_group", device.descriptor_group(0).map(drop)),
        ("set_group_space", device.set_group_space(0, 0).await),
    ];
    for (operation, answer) in answers {
        equal(
            format!("the answer to {operation}"),
            &answer,
            &Err(OpError::Gone),
        )?;
    }
    let attached = device.attach(Owner::Kernel, Trust::Isolated).map(drop);
    equal("the answer to attach", &attached, &Err(AttachError::Gone))
}
