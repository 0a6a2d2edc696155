//! Setting up, starting and stopping queues (VIRTIO 1.2, 2.6, 2.7 and 2.8).

use alloc::format;

use virtq::Notify;

use crate::ops::{Abilities, OpError};

use super::Service;
use super::bench::{Bench, Format, place_nowhere};
use super::rig::Rig;
use super::traffic::{Told, Traffic};
use super::verdict::{OrFail, Verdict, checks, ensure, equal};

checks! {
    "a queue is set up between FEATURES_OK and DRIVER_OK alone, unless it can be later" => in_time,
    "only legal sizes are taken, and the size is kept" => sizes,
    "a queue that is not set up completely is not started" => incomplete,
    "a queue is ready when it has been started, and no other is" => ready,
    "a queue stops alone, or the device says that it cannot" => stop_alone,
    "every queue can be notified in every state" => doorbells,
    "a doorbell that can be given away has a page for itself, and a store rings it" => pages,
}

async fn in_time(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let size = bench.queue_size(0)?;
    let wrong = Err(OpError::WrongState);
    device.reset().await.or_fail("reset")?;
    equal("a size at once", &device.set_queue_size(0, size), &wrong)?;
    equal("a place at once", &place_nowhere(device), &wrong)?;
    equal("a start at once", &device.start_queue(0).await, &wrong)?;
    bench.agree(Format::Split).await?;
    let set = device.set_queue_size(0, size);
    set.or_fail("a size after FEATURES_OK")?;
    bench.start().await?;
    let late = device
        .abilities()
        .contains(Abilities::ENABLE_AFTER_DRIVER_OK);
    let expected = if late { Ok(()) } else { wrong };
    equal(
        "a size after DRIVER_OK",
        &device.set_queue_size(0, size),
        &expected,
    )
}

async fn sizes(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    bench.agree(Format::Split).await?;
    for queue in 0..device.queue_count() {
        let limits = device.queue_size_limits(queue);
        let (smallest, largest) = limits.or_fail("the sizes of a queue")?;
        for size in [0, 3, largest.saturating_add(1), u16::MAX] {
            let legal = size.is_power_of_two() && (smallest..=largest).contains(&size);
            if !legal {
                let answer = device.set_queue_size(queue, size);
                equal(
                    format!("size {size} of queue {queue}"),
                    &answer,
                    &Err(OpError::Invalid),
                )?;
            }
        }
        // Smaller sizes are for the driver to choose; the largest is what the device itself has
        // offered.
        let size = bench.queue_size(queue)?;
        for size in [largest, size]
            .into_iter()
            .filter(|size| size.is_power_of_two())
        {
            let set = device.set_queue_size(queue, size);
            set.or_fail(format!("size {size} of queue {queue}"))?;
            equal(
                format!("the size of queue {queue}"),
                &device.queue_size(queue),
                &Ok(size),
            )?;
        }
    }
    Ok(())
}

async fn incomplete(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let wrong = Err(OpError::WrongState);
    bench.agree(Format::Split).await?;
    equal("a start", &device.start_queue(0).await, &wrong)?;
    let size = device.set_queue_size(0, bench.queue_size(0)?);
    size.or_fail("a size")?;
    equal(
        "a start without a place",
        &device.start_queue(0).await,
        &wrong,
    )?;
    equal("ready", &device.queue_ready(0), &Ok(false))
}

async fn ready(bench: &Bench<'_>) -> Verdict {
    for format in bench.formats()? {
        let rig = Rig::set_up(bench, *format).await?;
        for queue in 0..bench.device.queue_count() {
            let started = rig.lines.iter().any(|line| line.index == queue);
            equal(
                format!("queue {queue} ready"),
                &bench.device.queue_ready(queue),
                &Ok(started),
            )?;
        }
        rig.stop(bench).await?;
    }
    Ok(())
}

async fn stop_alone(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let rig = Rig::start(bench, Format::Split).await?;
    let answer = device.stop_queue(0).await;
    match answer {
        Ok(()) => {
            equal("queue 0 ready", &device.queue_ready(0), &Ok(false))?;
            let again = device.start_queue(0).await;
            again.or_fail("a queue that was stopped starts again")?;
            equal("queue 0 ready", &device.queue_ready(0), &Ok(true))?;
        }
        Err(OpError::Unsupported) => {
            equal("queue 0 ready", &device.queue_ready(0), &Ok(true))?;
        }
        Err(error) => ensure(false, format!("the answer to a stop is {error:?}"))?,
    }
    if rig.lines.len() > 1 {
        equal("queue 1 ready", &device.queue_ready(1), &Ok(true))?;
    }
    rig.stop(bench).await
}

async fn doorbells(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    ring_all(bench, "at once")?;
    bench.agree(Format::Split).await?;
    ring_all(bench, "after FEATURES_OK")?;
    let rig = Rig::start(bench, Format::Split).await?;
    ring_all(bench, "after DRIVER_OK")?;
    device.reset().await.or_fail("reset")?;
    // Doorbells of before the reset lead place_nowhere now, and harm nobody.
    rig.lines.iter().for_each(|line| line.doorbell.ring(0));
    equal(
        "the status",
        &device.status().map(|status| status.bits()),
        &Ok(0),
    )?;
    rig.stop(bench).await?;
    if let Ok(mut traffic) = Traffic::start(bench, Format::Split).await {
        traffic.round_trip(bench).await?;
        traffic.stop(bench).await?;
    }
    Ok(())
}

fn ring_all(bench: &Bench<'_>, when: &str) -> Verdict {
    for queue in 0..bench.device.queue_count() {
        let doorbell = bench.device.doorbell(queue);
        doorbell
            .or_fail(format!("the doorbell of queue {queue} {when}"))?
            .ring(0);
    }
    Ok(())
}

async fn pages(bench: &Bench<'_>) -> Verdict {
    const PAGE: u64 = 4096;
    let device = &bench.device;
    let mut earlier = alloc::vec::Vec::new();
    for queue in 0..device.queue_count() {
        let area = device.notification_area(queue);
        let Some(area) = area.or_fail(format!("the page of queue {queue}"))? else {
            continue;
        };
        let whole =
            area.base.0.is_multiple_of(PAGE) && area.len > 0 && area.len.is_multiple_of(PAGE);
        ensure(whole, format!("{area:?} of queue {queue} is no page"))?;
        let shared = earlier.contains(&area.base);
        ensure(!shared, format!("{area:?} is that of two queues"))?;
        earlier.push(area.base);
    }
    if earlier.is_empty() || bench.subject.service() == Service::None {
        return Ok(());
    }
    rung_by_store(bench).await
}

/// A client has no doorbell but the page.
async fn rung_by_store(bench: &Bench<'_>) -> Verdict {
    let mut traffic = Traffic::start(bench, Format::Split).await?;
    traffic.request(bench, Told::No)?;
    for line in &mut traffic.rig.lines {
        let area = bench.device.notification_area(line.index);
        let Some(area) = area.or_fail(format!("the page of queue {}", line.index))? else {
            line.kick();
            continue;
        };
        // SAFETY: the doorbells of this queue lie there and nothing else.
        let page = unsafe { bench.platform.map_mmio(area.base, area.len) };
        let page = page.or_fail(format!("mapping {area:?}"))?;
        if line.ring.publish() == Notify::Needed {
            // SAFETY: the queue has chains that were lent to the device.
            unsafe { page.write16(0, line.index) };
        }
    }
    traffic.answer(bench, traffic.number()).await?;
    traffic.stop(bench).await
}
