//! Suspending a device and letting it go on.

use alloc::format;
use alloc::vec;

use crate::ops::{Abilities, OpError};

use super::bench::{Bench, Format, running};
use super::rig::Rig;
use super::traffic::{Told, Traffic};
use super::verdict::{OrFail, Verdict, checks, equal, skip_unless};

checks! {
    "a device without the ability says so, and goes on" => unable,
    "a device that has not been started cannot be suspended" => too_early,
    "a suspended device answers everything else" => answers,
    "a suspended device uses nothing, and what is kicked meanwhile is served afterwards" => kicked,
    "a device can be suspended again and again under load" => again,
}

fn needs(bench: &Bench<'_>, abilities: Abilities) -> Verdict {
    let able = bench.device.abilities().contains(abilities);
    skip_unless(able, "it cannot be suspended and resumed")
}

async fn unable(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let abilities = device.abilities();
    let rig = Rig::start(bench, Format::Split).await?;
    if !abilities.contains(Abilities::SUSPEND) {
        let answer = device.suspend().await;
        equal("suspend", &answer, &Err(OpError::Unsupported))?;
    }
    if !abilities.contains(Abilities::RESUME) {
        let answer = device.resume().await;
        equal("resume", &answer, &Err(OpError::Unsupported))?;
    }
    equal("the status", &device.status(), &Ok(running()))?;
    rig.stop(bench).await
}

async fn too_early(bench: &Bench<'_>) -> Verdict {
    needs(bench, Abilities::SUSPEND)?;
    let device = &bench.device;
    let wrong = Err(OpError::WrongState);
    equal("suspend at once", &device.suspend().await, &wrong)?;
    bench.agree(Format::Split).await?;
    equal("suspend after FEATURES_OK", &device.suspend().await, &wrong)?;
    equal("suspended", &device.is_suspended(), &Ok(false))
}

async fn answers(bench: &Bench<'_>) -> Verdict {
    needs(bench, Abilities::SUSPEND)?;
    let device = &bench.device;
    let rig = Rig::start(bench, Format::Split).await?;
    device.suspend().await.or_fail("suspend")?;
    equal("suspended", &device.is_suspended(), &Ok(true))?;
    equal("the status", &device.status(), &Ok(running()))?;
    equal("queue 0 ready", &device.queue_ready(0), &Ok(true))?;
    let size = device.config_size().or_fail("the configuration")?.min(8);
    let read = device.read_config(0, &mut vec![0; size as usize]);
    read.or_fail("the configuration")?;
    let features = device.driver_features();
    features.or_fail("the features accepted")?;
    device.suspend().await.or_fail("suspend, suspended")?;
    rig.stop(bench).await
}

async fn kicked(bench: &Bench<'_>) -> Verdict {
    needs(bench, Abilities::SUSPEND | Abilities::RESUME)?;
    let device = &bench.device;
    for format in bench.formats()? {
        let mut traffic = Traffic::start(bench, *format).await?;
        traffic.round_trip(bench).await?;
        device.suspend().await.or_fail("suspend")?;
        traffic.request(bench, Told::Yes)?;
        traffic.is_quiet(bench).await?;
        device.resume().await.or_fail("resume")?;
        let number = traffic.number();
        traffic.answer(bench, number).await?;
        traffic.round_trip(bench).await?;
        traffic.is_quiet(bench).await?;
        traffic.stop(bench).await?;
    }
    Ok(())
}

async fn again(bench: &Bench<'_>) -> Verdict {
    needs(bench, Abilities::SUSPEND | Abilities::RESUME)?;
    let device = &bench.device;
    let mut traffic = Traffic::start(bench, Format::Split).await?;
    for round in 0..10 {
        // The device may have served it before it stops, or not: it is served once in any case.
        traffic.request(bench, Told::Yes)?;
        let suspended = device.suspend().await;
        suspended.or_fail(format!("suspend, round {round}"))?;
        let resumed = device.resume().await;
        resumed.or_fail(format!("resume, round {round}"))?;
        let number = traffic.number();
        traffic.answer(bench, number).await?;
    }
    traffic.is_quiet(bench).await?;
    traffic.stop(bench).await
}
