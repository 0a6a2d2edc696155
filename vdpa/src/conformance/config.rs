//! The configuration space (VIRTIO 1.2, 2.5).

use alloc::format;
use alloc::sync::Arc;
use alloc::vec;

use virtq::Event;

use crate::ops::OpError;
use crate::platform::Callback;

use super::bench::{Bench, Format};
use super::verdict::{OrFail, Stop, Verdict, checks, ensure, equal, skip_unless};

checks! {
    "the configuration can be read whole and in parts" => parts,
    "what lies outside the configuration is refused" => outside,
    "the generation stands still while nothing changes" => generation,
    "a change has a new generation and is told" => change,
}

fn size(bench: &Bench<'_>) -> Result<u32, Stop> {
    let size = bench.device.config_size();
    size.or_fail("the size of the configuration")
}

async fn parts(bench: &Bench<'_>) -> Verdict {
    bench.agree(Format::Split).await?;
    let device = &bench.device;
    // No device type has more; what a device maps beyond it is filler.
    let size = size(bench)?.min(256);
    let mut whole = vec![0; size as usize];
    device.read_config(0, &mut whole).or_fail("all of it")?;
    // Not in words: a field is read in its own width (VIRTIO 1.2, 4.1.3.1), and may be a byte.
    for (offset, expected) in (0..).zip(&whole) {
        let mut byte = [0];
        let read = device.read_config(offset, &mut byte);
        read.or_fail(format!("byte {offset}"))?;
        equal(format!("byte {offset}"), &byte[0], expected)?;
    }
    device
        .read_config(size, &mut [])
        .or_fail("nothing, at its end")
}

async fn outside(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let size = size(bench)?;
    let ranges = [
        (size, 1),
        (size.saturating_sub(1), 2),
        (u32::MAX, 1),
        (u32::MAX, 4),
    ];
    for (offset, len) in ranges {
        let mut bytes = vec![0; len];
        let read = device.read_config(offset, &mut bytes);
        equal(
            format!("{len} bytes at {offset}"),
            &read,
            &Err(OpError::OutOfRange),
        )?;
        let write = device.write_config(offset, &bytes);
        equal(
            format!("{len} bytes at {offset}"),
            &write,
            &Err(OpError::OutOfRange),
        )?;
    }
    Ok(())
}

async fn generation(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let before = device.config_generation();
    let mut bytes = vec![0; size(bench)?.min(8) as usize];
    device.read_config(0, &mut bytes).or_fail("a read")?;
    equal("the generation", &device.config_generation(), &before)
}

async fn change(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    bench.agree(Format::Split).await?;
    let event = Arc::<Event>::default();
    let callback = Callback::event(Arc::clone(&event));
    device
        .set_config_callback(Some(callback))
        .or_fail("a callback")?;
    bench.start().await?;
    let before = device.config_generation();
    let changed = bench.subject.change_config();
    skip_unless(
        changed,
        "the subject cannot make it change its configuration",
    )?;
    let told = bench.wait(|| event.take().then_some(())).await;
    ensure(told.is_some(), "the change is not told")?;
    ensure(
        device.config_generation() != before,
        "the generation is the same",
    )?;
    device.reset().await.or_fail("reset")?;
    event.take();
    bench.subject.change_config();
    let calm = bench.stays_calm(|| event.take().then_some(())).await;
    ensure(
        calm,
        "a change is told after the reset that has cleared the callback",
    )
}
