//! A device of any type, by the requests that its subject makes.

use alloc::vec::Vec;

use super::bench::{Bench, Format};
use super::traffic::{Told, Traffic};
use super::verdict::{Verdict, checks};

checks! {
    "split: its own requests are answered, with the lengths that they have" => split,
    "packed: its own requests are answered, with the lengths that they have" => packed,
    "its own requests are each answered once, also many at a time" => many,
}

/// Requests one after the other, more than a ring holds.
const ROUNDS: u8 = 40;

async fn split(bench: &Bench<'_>) -> Verdict {
    one_by_one(bench, Format::Split).await
}

async fn packed(bench: &Bench<'_>) -> Verdict {
    bench.needs_packed()?;
    one_by_one(bench, Format::Packed).await
}

async fn one_by_one(bench: &Bench<'_>, format: Format) -> Verdict {
    let mut traffic = Traffic::start(bench, format).await?;
    for _ in 0..ROUNDS {
        traffic.round_trip(bench).await?;
    }
    traffic.is_quiet(bench).await?;
    traffic.stop(bench).await
}

/// The answers may come in any order; each is that of one request.
async fn many(bench: &Bench<'_>) -> Verdict {
    for format in bench.formats()? {
        let mut traffic = Traffic::start(bench, *format).await?;
        let line = traffic.answers();
        for _ in 0..ROUNDS {
            let mut open = Vec::new();
            for told in [Told::No, Told::Yes] {
                traffic.request(bench, told)?;
                open.push(traffic.number());
            }
            while let Some(latest) = open.last().copied() {
                let answer = traffic.rig.lines[line].answer(bench).await?;
                let fits = |number: &u8| answer.judge(bench, *number).is_ok();
                match open.iter().position(fits) {
                    Some(place) => _ = open.remove(place),
                    None => answer.judge(bench, latest)?,
                }
            }
        }
        traffic.is_quiet(bench).await?;
        traffic.stop(bench).await?;
    }
    Ok(())
}
