//! Features (VIRTIO 1.2, 2.2).

use alloc::format;

use crate::Features;
use crate::ops::OpError;

use super::bench::{Bench, Format, driver};
use super::verdict::{OrFail, Stop, Verdict, checks, ensure, equal};

checks! {
    "it offers VERSION_1, and the same features each time" => offer,
    "what is accepted is kept, and forgotten by a reset" => kept,
    "a feature that it does not offer is refused" => not_offered,
    "the features are fixed once they are agreed on" => fixed,
    "everything that it offers can be agreed on at once or is refused properly" => everything,
}

fn offered(bench: &Bench<'_>) -> Result<Features, Stop> {
    let offered = bench.device.device_features();
    offered.or_fail("the features offered")
}

async fn offer(bench: &Bench<'_>) -> Verdict {
    let before = offered(bench)?;
    ensure(
        before.contains(virtio::F::VERSION_1),
        format!("VERSION_1 is not among {before}"),
    )?;
    bench.agree(Format::Split).await?;
    equal("the offer after FEATURES_OK", &offered(bench)?, &before)?;
    bench.device.reset().await.or_fail("reset")?;
    equal("the offer after a reset", &offered(bench)?, &before)
}

async fn kept(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let none = Ok(Features::EMPTY);
    equal(
        "what is accepted at first",
        &device.driver_features(),
        &none,
    )?;
    for format in bench.formats()? {
        let features = bench.wanted(*format, Features::EMPTY)?;
        bench.negotiate(features).await?;
        equal("what is accepted", &device.driver_features(), &Ok(features))?;
        device.reset().await.or_fail("reset")?;
        equal(
            "what is accepted after a reset",
            &device.driver_features(),
            &none,
        )?;
    }
    Ok(())
}

async fn not_offered(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let offered = offered(bench)?;
    device.reset().await.or_fail("reset")?;
    device.set_status(driver()).await.or_fail("DRIVER")?;
    let missing = (0..u128::BITS).map(|bit| Features::from_bits(1 << bit));
    for feature in missing.filter(|feature| !offered.contains(*feature)) {
        let answer = device.set_driver_features(feature | virtio::F::VERSION_1.into());
        equal(
            format!("the answer to {feature}"),
            &answer,
            &Err(OpError::Invalid),
        )?;
    }
    Ok(())
}

async fn fixed(bench: &Bench<'_>) -> Verdict {
    bench.agree(Format::Split).await?;
    let before = bench.device.driver_features();
    let answer = bench.device.set_driver_features(Features::EMPTY);
    equal("the answer", &answer, &Err(OpError::WrongState))?;
    equal("what is accepted", &bench.device.driver_features(), &before)
}

async fn everything(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let offered = offered(bench)?;
    device.reset().await.or_fail("reset")?;
    device.set_status(driver()).await.or_fail("DRIVER")?;
    let agreed = match device.set_driver_features(offered) {
        Ok(()) => device.set_status(super::bench::agreed()).await,
        refused => refused,
    };
    ensure(
        matches!(agreed, Ok(()) | Err(OpError::FeaturesRefused)),
        format!("the answer to {offered} is {agreed:?}"),
    )?;
    // Whatever it was, it does not stand in the way of the next attempt.
    bench.agree(Format::Split).await
}
