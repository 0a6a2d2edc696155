//! How a device says that it has used something (VIRTIO 1.2, 2.7.7 and 2.8.10).

use alloc::format;
use alloc::vec::Vec;

use super::bench::{Bench, Format};
use super::rig::Rig;
use super::traffic::{Told, Traffic};
use super::verdict::{OrFail, Verdict, checks, ensure, equal};

checks! {
    "a queue's callback is called when something has been used" => called,
    "nobody is called after a reset" => not_after_reset,
    "a queue's interrupt message stays the same while the device runs" => message,
}

async fn called(bench: &Bench<'_>) -> Verdict {
    for format in bench.formats()? {
        let mut traffic = Traffic::start(bench, *format).await?;
        traffic.request(bench, Told::Yes)?;
        let event = alloc::sync::Arc::clone(&traffic.rig.lines[traffic.answers()].event);
        let told = bench.wait(|| event.take().then_some(())).await;
        ensure(told.is_some(), format!("{format:?}: nobody is called"))?;
        let number = traffic.number();
        traffic.answer(bench, number).await?;
        traffic.stop(bench).await?;
    }
    Ok(())
}

async fn not_after_reset(bench: &Bench<'_>) -> Verdict {
    let mut traffic = Traffic::start(bench, Format::Split).await?;
    traffic.round_trip(bench).await?;
    traffic.request(bench, Told::Yes)?;
    bench.device.reset().await.or_fail("reset")?;
    let events: Vec<_> = traffic.rig.lines.iter().map(|line| &line.event).collect();
    for event in &events {
        event.take();
    }
    traffic
        .rig
        .lines
        .iter()
        .for_each(|line| line.doorbell.ring(0));
    let calm = bench.stays_calm(|| events.iter().any(|event| event.take()).then_some(()));
    ensure(calm.await, "somebody is called after the reset")?;
    traffic.stop(bench).await
}

async fn message(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let mut rig = Rig::start(bench, Format::Split).await?;
    let messages = |rig: &Rig| {
        let lines = rig.lines.iter();
        lines
            .map(|line| device.queue_interrupt(line.index))
            .collect::<Result<Vec<_>, _>>()
    };
    let first = messages(&rig).or_fail("the messages of the queues")?;
    rig.lines.iter_mut().for_each(|line| line.kick());
    let second = messages(&rig).or_fail("the messages of the queues")?;
    equal("the messages", &second, &first)?;
    for (index, message) in first.iter().enumerate() {
        let alone = message.is_none() || !first[..index].contains(message);
        ensure(alone, "two queues have the same message")?;
    }
    rig.stop(bench).await?;
    for queue in 0..device.queue_count().min(4) {
        let after = device.queue_interrupt(queue);
        equal(
            format!("the message of queue {queue} after a reset"),
            &after,
            &Ok(None),
        )?;
    }
    Ok(())
}
