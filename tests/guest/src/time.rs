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
    // On a host that stops this machine for longer than they are apart, all of them are due at once.
    for _ in 0..20 {
        let start = bench.now();
        let woken = RefCell::new(Vec::new());
        let sleeper = async |millis| {
            bench.sleep(Duration::from_millis(millis)).await;
            woken.borrow_mut().push(millis);
        };
        join3(sleeper(60), sleeper(20), sleeper(40)).await;
        if bench.now() - start < Duration::from_millis(75) {
            ensure_eq!(woken.take(), [20, 40, 60]);
            return Ok(());
        }
    }
    Err(Failure::from(
        "the host never left this machine alone for 75 ms",
    ))
}

async fn zero_sleep_ends(bench: &Bench) -> Outcome {
    for _ in 0..100 {
        bench.sleep(Duration::ZERO).await;
    }
    Ok(())
}
