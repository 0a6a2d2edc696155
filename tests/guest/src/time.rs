//! The clock and the timer.

use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use embassy_futures::join::join3;

use crate::bench::Bench;
use crate::outcome::{Failure, Outcome};
use crate::{ensure, ensure_eq, guest_tests};

guest_tests![
    clock_never_goes_back,
    sleep_is_not_early,
    sleepers_wake_in_order,
    zero_sleep_ends
];

/// How late a sleeper may be on a busy host: more is a lost interrupt, not a slow machine.
const LATENESS: Duration = Duration::from_secs(2);

async fn clock_never_goes_back(bench: &Bench) -> Outcome {
    let mut last = bench.now();
    for _ in 0..100_000 {
        let now = bench.now();
        ensure!(now >= last, "{now:?} came after {last:?}");
        last = now;
    }
    Ok(())
}

async fn sleep_is_not_early(bench: &Bench) -> Outcome {
    for micros in [1, 100, 1_000, 3_000, 10_000, 50_000] {
        let asked = Duration::from_micros(micros);
        let start = bench.now();
        bench.sleep(asked).await;
        let slept = bench.now() - start;
        ensure!(slept >= asked, "slept {slept:?} instead of {asked:?}");
        ensure!(
            slept < asked + LATENESS,
            "slept {slept:?} instead of {asked:?}"
        );
    }
    Ok(())
}

async fn sleepers_wake_in_order(bench: &Bench) -> Outcome {
    const APART: Duration = Duration::from_millis(20);
    for _ in 0..20 {
        let start = bench.now();
        let woken = RefCell::new(Vec::new());
        let sleeper = async |asked| {
            bench.sleep(asked).await;
            woken.borrow_mut().push((asked, bench.now() - start));
        };
        join3(sleeper(APART * 3), sleeper(APART), sleeper(APART * 2)).await;
        // Of those that are due at once, because the host stopped this machine, any may be first.
        let woken = woken.take();
        if woken.iter().all(|(asked, slept)| *slept < *asked + APART) {
            let order: Vec<Duration> = woken.into_iter().map(|(asked, _)| asked).collect();
            ensure_eq!(order, [APART, APART * 2, APART * 3]);
            return Ok(());
        }
    }
    Err(Failure::from(
        "the host never left this machine alone for 20 ms",
    ))
}

async fn zero_sleep_ends(bench: &Bench) -> Outcome {
    for _ in 0..100 {
        bench.sleep(Duration::ZERO).await;
    }
    Ok(())
}
