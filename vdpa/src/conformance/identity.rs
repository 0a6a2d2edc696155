//! What a device says of itself.

use alloc::format;

use crate::ops::OpError;

use super::bench::Bench;
use super::verdict::{OrFail, Verdict, checks, ensure, equal};

checks! {
    "its type, its vendor and its abilities are what they should be" => identity,
    "it has queues, and their limits make sense" => limits,
    "a queue that it does not have is refused" => no_such_queue,
}

async fn identity(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    equal(
        "the device type",
        &device.device_type(),
        &bench.subject.device_type(),
    )?;
    ensure(device.device_type() != 0, "device type 0 is reserved")?;
    let (first, second) = (device.vendor_id(), device.vendor_id());
    equal("the vendor, asked twice", &second, &first)?;
    equal(
        "the abilities",
        &device.abilities(),
        &bench.subject.abilities(),
    )
}

async fn limits(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    ensure(device.queue_count() > 0, "it has no queue")?;
    let align = device.queue_align();
    ensure(
        align.is_power_of_two(),
        format!("an alignment of {align} is no power of two"),
    )?;
    for queue in 0..device.queue_count() {
        let (smallest, largest) = device
            .queue_size_limits(queue)
            .or_fail(format!("the sizes of queue {queue}"))?;
        let legal = 0 < smallest && smallest <= largest && largest <= 1 << 15;
        ensure(
            legal,
            format!("queue {queue} has {smallest} to {largest} entries"),
        )?;
        equal(
            format!("the size of queue {queue} before it is set"),
            &device.queue_size(queue),
            &Ok(largest),
        )?;
    }
    Ok(())
}

async fn no_such_queue(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    for queue in [device.queue_count(), u16::MAX] {
        let answers = [
            device.queue_size_limits(queue).map(drop),
            device.queue_ready(queue).map(drop),
            device.doorbell(queue).map(drop),
            device.queue_state(queue).await.map(drop),
            device.queue_group(queue).map(drop),
            device.queue_interrupt(queue).map(drop),
            device.notification_area(queue).map(drop),
            device.queue_statistics(queue).map(drop),
        ];
        for answer in answers {
            equal(
                format!("the answer about queue {queue}"),
                &answer,
                &Err(OpError::OutOfRange),
            )?;
        }
    }
    Ok(())
}
