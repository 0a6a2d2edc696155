//! Where a queue starts and where it stands: what it takes to go on elsewhere.

use alloc::format;

use virtq::RingState;

use crate::Features;
use crate::ops::{Abilities, OpError, QueueState};

use super::bench::{Bench, Format, place_nowhere};
use super::rig::Rig;
use super::traffic::{Told, Traffic};
use super::verdict::{OrFail, Stop, Verdict, checks, ensure, equal, skip_unless};

checks! {
    "split: a queue starts where it is told to, or at the start alone" => split,
    "packed: a queue starts where it is told to, or at the start alone" => packed,
    "a state of the other format, or outside the queue, is refused" => foreign,
    "the state of a queue that runs is not told" => running,
    "a queue that was stopped alone goes on where it stood" => stopped,
    "a state that is set while the device is suspended is where its queue stands" => suspended,
    "a suspended device goes on from its state after a reset, and nothing is lost or doubled" => elsewhere,
}

fn tells_state(bench: &Bench<'_>) -> bool {
    bench.device.abilities().contains(Abilities::QUEUE_STATE)
}

async fn split(bench: &Bench<'_>) -> Verdict {
    let states =
        [1, 0x7fff, 0x8000, 0xfffe, 0xffff].map(|avail_index| QueueState::Split { avail_index });
    start_at(bench, Format::Split, &states).await
}

async fn packed(bench: &Bench<'_>) -> Verdict {
    bench.needs_packed()?;
    let states = [(1, true), (0, false), (2, false)]
        .map(|(index, wrap)| QueueState::from(RingState::Packed { index, wrap }));
    start_at(bench, Format::Packed, &states).await
}

async fn start_at(bench: &Bench<'_>, format: Format, states: &[QueueState]) -> Verdict {
    let device = &bench.device;
    let features = bench.wanted(format, Features::EMPTY)?;
    let start = QueueState::from(bench.ring_start(features));
    bench.negotiate(features).await?;
    for queue in 0..device.queue_count() {
        let size = device.set_queue_size(queue, bench.queue_size(queue)?);
        size.or_fail("a size")?;
        let set = device.set_queue_state(queue, start);
        set.or_fail(format!("{start:?} of queue {queue}"))?;
        for state in states {
            let answer = device.set_queue_state(queue, *state);
            if !tells_state(bench) {
                let refused = Err(OpError::Unsupported);
                equal(format!("{state:?} of queue {queue}"), &answer, &refused)?;
                continue;
            }
            answer.or_fail(format!("{state:?} of queue {queue}"))?;
            equal(
                format!("the state of queue {queue}"),
                &device.queue_state(queue).await,
                &Ok(*state),
            )?;
        }
    }
    if tells_state(bench) {
        device.reset().await.or_fail("reset")?;
        bench.negotiate(features).await?;
        equal(
            "the state after a reset",
            &device.queue_state(0).await,
            &Ok(start),
        )?;
    }
    Ok(())
}

async fn foreign(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let split = QueueState::Split { avail_index: 0 };
    let inside = |index| QueueState::from(RingState::Packed { index, wrap: true });
    let invalid = Err(OpError::Invalid);
    bench.agree(Format::Split).await?;
    equal(
        "a packed state of a split queue",
        &device.set_queue_state(0, inside(0)),
        &invalid,
    )?;
    if bench.formats()?.contains(&Format::Packed) {
        bench.agree(Format::Packed).await?;
        equal(
            "a split state of a packed queue",
            &device.set_queue_state(0, split),
            &invalid,
        )?;
        let size = bench.queue_size(0)?;
        device.set_queue_size(0, size).or_fail("a size")?;
        equal(
            "a state at the end",
            &device.set_queue_state(0, inside(size)),
            &invalid,
        )?;
    }
    Ok(())
}

async fn running(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let rig = Rig::start(bench, Format::Split).await?;
    let wrong = OpError::WrongState;
    equal("the state", &device.queue_state(0).await, &Err(wrong))?;
    let start = QueueState::Split { avail_index: 0 };
    equal(
        "a new state",
        &device.set_queue_state(0, start),
        &Err(wrong),
    )?;
    equal("a new place", &place_nowhere(device), &Err(wrong))?;
    rig.stop(bench).await
}

async fn stopped(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    skip_unless(
        tells_state(bench),
        "it does not tell the state of its queues",
    )?;
    for format in bench.formats()? {
        let mut traffic = Traffic::start(bench, *format).await?;
        for _ in 0..3 {
            traffic.round_trip(bench).await?;
        }
        let queue = traffic.rig.lines[traffic.requests()].index;
        match device.stop_queue(queue).await {
            Err(OpError::Unsupported) => {
                traffic.stop(bench).await?;
                return Err(Stop::Skipped("it stops by a reset alone"));
            }
            stopped => stopped.or_fail("a stop")?,
        }
        let stands = device.queue_state(queue).await.or_fail("where it stands")?;
        if *format == Format::Split {
            equal(
                "where it stands",
                &stands,
                &QueueState::Split { avail_index: 3 },
            )?;
        }
        traffic.request(bench, Told::Yes)?;
        traffic.is_quiet(bench).await?;
        device.start_queue(queue).await.or_fail("another start")?;
        let line = &traffic.rig.lines[traffic.requests()];
        line.doorbell.ring(line.ring.place());
        let number = traffic.number();
        traffic.answer(bench, number).await?;
        traffic.round_trip(bench).await?;
        traffic.stop(bench).await?;
    }
    Ok(())
}

async fn suspended(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let needed = Abilities::SUSPEND | Abilities::QUEUE_STATE;
    let able = device.abilities().contains(needed);
    skip_unless(able, "it does not tell the state of its queues")?;
    for format in bench.formats()? {
        let states = match format {
            Format::Split => [7, 0].map(|avail_index| QueueState::Split { avail_index }),
            Format::Packed => [(1, true), (0, false)]
                .map(|(index, wrap)| QueueState::from(RingState::Packed { index, wrap })),
        };
        for state in states {
            let rig = Rig::start(bench, *format).await?;
            device.suspend().await.or_fail("suspend")?;
            let set = device.set_queue_state(0, state);
            set.or_fail(format!("{state:?}"))?;
            equal("the state", &device.queue_state(0).await, &Ok(state))?;
            match device.stop_queue(0).await {
                Err(OpError::Unsupported) => {}
                stopped => {
                    stopped.or_fail("a stop")?;
                    equal(
                        "the state, stopped",
                        &device.queue_state(0).await,
                        &Ok(state),
                    )?;
                }
            }
            rig.stop(bench).await?;
        }
    }
    Ok(())
}

async fn elsewhere(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let needed = Abilities::SUSPEND | Abilities::QUEUE_STATE;
    let able = device.abilities().contains(needed);
    skip_unless(able, "it does not tell the state of its queues")?;
    for format in bench.formats()? {
        let mut traffic = Traffic::start(bench, *format).await?;
        for _ in 0..5 {
            traffic.round_trip(bench).await?;
        }
        device.suspend().await.or_fail("suspend")?;
        // Made available while nobody looks: the next device finds it.
        traffic.request(bench, Told::No)?;
        let states: alloc::vec::Vec<_> =
            traffic.states(bench).await?.into_iter().map(Some).collect();
        traffic.rig.take_over(bench, &states).await?;
        traffic.kick();
        let number = traffic.number();
        traffic.answer(bench, number).await?;
        traffic.is_quiet(bench).await?;
        for _ in 0..5 {
            traffic.round_trip(bench).await?;
        }
        ensure(
            device.is_suspended() == Ok(false),
            "the device is still suspended after a reset",
        )?;
        traffic.stop(bench).await?;
    }
    Ok(())
}
