//! What a device counts.

use alloc::format;
use alloc::vec::Vec;

use crate::ops::{OpError, VendorCounter};

use super::bench::{Bench, Format};
use super::traffic::Traffic;
use super::verdict::{OrFail, Stop, Verdict, checks, ensure, equal};

checks! {
    "it counts in every state or in none, and never backwards" => in_every_state,
    "what goes through its queues is counted" => traffic,
}

/// The counters of a queue; nothing, if the device does not count.
fn counters(bench: &Bench<'_>, queue: u16) -> Result<Option<Vec<VendorCounter>>, Stop> {
    match bench.device.queue_statistics(queue) {
        Ok(counters) => Ok(Some(counters)),
        Err(OpError::Unsupported) => Ok(None),
        error => error
            .map(Some)
            .or_fail(format!("the counters of queue {queue}")),
    }
}

async fn in_every_state(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    for queue in 0..device.queue_count().min(4) {
        let first = counters(bench, queue)?;
        bench.agree(Format::Split).await?;
        let second = counters(bench, queue)?;
        bench.start().await?;
        let third = counters(bench, queue)?;
        device.reset().await.or_fail("reset")?;
        let last = counters(bench, queue)?;
        for (before, after) in [(&first, &second), (&second, &third), (&third, &last)] {
            compare(before.as_ref(), after.as_ref())?;
        }
    }
    Ok(())
}

/// The counters are the same ones, and none has gone back.
fn compare(before: Option<&Vec<VendorCounter>>, after: Option<&Vec<VendorCounter>>) -> Verdict {
    equal("whether it counts", &after.is_some(), &before.is_some())?;
    let (Some(before), Some(after)) = (before, after) else {
        return Ok(());
    };
    equal("the number of counters", &after.len(), &before.len())?;
    for (before, after) in before.iter().zip(after) {
        equal("the name of a counter", &after.0, &before.0)?;
        ensure(after.1 >= before.1, format!("{} has gone back", before.0))?;
    }
    Ok(())
}

async fn traffic(bench: &Bench<'_>) -> Verdict {
    let Some(first) = counters(bench, 0)? else {
        return Err(Stop::Skipped("it does not count"));
    };
    let mut traffic = Traffic::start(bench, Format::Split).await?;
    let line = &traffic.rig.lines[traffic.answers()];
    let queue = line.index;
    let before = counters(bench, queue)?.unwrap_or(first);
    for _ in 0..3 {
        traffic.round_trip(bench).await?;
    }
    let sum = |counters: &[VendorCounter]| {
        counters
            .iter()
            .fold(0u128, |sum, it| sum + u128::from(it.1))
    };
    // A device without interrupts may notice a moment later.
    let moved = || {
        let after = counters(bench, queue).ok().flatten()?;
        (sum(&after) > sum(&before)).then_some(after)
    };
    let after = bench.wait(moved).await;
    traffic.stop(bench).await?;
    ensure(after.is_some(), "no counter has moved")?;
    compare(Some(&before), after.as_ref())
}
