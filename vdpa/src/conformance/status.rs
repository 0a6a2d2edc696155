//! The device status and the reset (VIRTIO 1.2, 2.1 and 2.4).

use alloc::format;

use virtio::DeviceStatus;

use crate::ops::{Abilities, OpError};

use super::bench::{Bench, Format, agreed, driver, running};
use super::rig::Rig;
use super::verdict::{OrFail, Verdict, checks, ensure, equal};

checks! {
    "the status is what was set, bit by bit" => bit_by_bit,
    "bits are never taken away, and DRIVER_OK does not come before FEATURES_OK" => order,
    "a reset leads back to the start from every state" => reset_from_everywhere,
    "a device can be started again after each reset" => again,
}

async fn bit_by_bit(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    equal(
        "the first status",
        &device.status(),
        &Ok(DeviceStatus::empty()),
    )?;
    bench.agree(Format::Split).await?;
    equal("the status", &device.status(), &Ok(agreed()))?;
    bench.start().await?;
    equal("the status", &device.status(), &Ok(running()))?;
    let failed = running() | DeviceStatus::FAILED;
    device.set_status(failed).await.or_fail("FAILED")?;
    equal("the status", &device.status(), &Ok(failed))
}

async fn order(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    device.reset().await.or_fail("reset")?;
    device.set_status(driver()).await.or_fail("DRIVER")?;
    let skipped = device.set_status(driver() | DeviceStatus::DRIVER_OK).await;
    equal("DRIVER_OK at once", &skipped, &Err(OpError::WrongState))?;
    let fewer = device.set_status(DeviceStatus::ACKNOWLEDGE).await;
    equal("a bit taken away", &fewer, &Err(OpError::Invalid))?;
    equal("the status", &device.status(), &Ok(driver()))
}

async fn reset_from_everywhere(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    at_start(bench, "nothing").await?;
    device.set_status(driver()).await.or_fail("DRIVER")?;
    at_start(bench, "DRIVER").await?;
    bench.agree(Format::Split).await?;
    at_start(bench, "FEATURES_OK").await?;
    for format in bench.formats()? {
        let rig = Rig::set_up(bench, *format).await?;
        at_start(bench, "queues that are ready").await?;
        rig.released();
        let rig = Rig::start(bench, *format).await?;
        at_start(bench, "DRIVER_OK").await?;
        rig.released();
    }
    if device.abilities().contains(Abilities::SUSPEND) {
        let rig = Rig::start(bench, Format::Split).await?;
        device.suspend().await.or_fail("suspend")?;
        at_start(bench, "a suspension").await?;
        equal("suspended", &device.is_suspended(), &Ok(false))?;
        rig.released();
    }
    let rig = Rig::start(bench, Format::Split).await?;
    let failed = device.set_status(running() | DeviceStatus::FAILED).await;
    failed.or_fail("FAILED")?;
    at_start(bench, "FAILED").await?;
    rig.released();
    Ok(())
}

/// Resets the device, after which it is as new.
async fn at_start(bench: &Bench<'_>, after: &str) -> Verdict {
    let device = &bench.device;
    let reset = device.reset().await;
    reset.or_fail(format!("a reset after {after}"))?;
    let empty = Ok(DeviceStatus::empty());
    equal(
        format!("the status after {after}"),
        &device.status(),
        &empty,
    )?;
    for queue in 0..device.queue_count() {
        let ready = device.queue_ready(queue);
        ensure(
            ready == Ok(false),
            format!("queue {queue} after {after}: ready is {ready:?}"),
        )?;
    }
    Ok(())
}

async fn again(bench: &Bench<'_>) -> Verdict {
    for _ in 0..4 {
        for format in bench.formats()? {
            let rig = Rig::start(bench, *format).await?;
            rig.stop(bench).await?;
        }
    }
    Ok(())
}
