//! How long our queues take, and those of others, on the same chains in one run: criterion's
//! groups, and at the end a table with ratios.

mod contest;
mod report;

use std::hint::black_box;
use std::time::{Duration, Instant};

use contest::{Case, cases};
use criterion::{BenchmarkId, Criterion, Throughput};
use report::Figure;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    let mut cases = cases();
    for case in cases
        .iter_mut()
        .filter(|case| !case.contender.is_counterpart())
    {
        bench(&mut criterion, case);
    }
    criterion.final_summary();
    // `cargo bench` says `--bench`; `cargo test` only wants to see every case work, a profiler only
    // one.
    let says = |option| std::env::args().any(|argument| argument == option);
    if says("--bench") && !says("--profile-time") {
        time();
    }
}

fn bench(criterion: &mut Criterion, case: &mut Case) {
    let mut group = criterion.benchmark_group(format!("{}, {}", case.side, case.load));
    group.throughput(Throughput::Elements(case.load.batch.into()));
    let id = BenchmarkId::from_parameter(case.contender.name(case.side));
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|rounds| {
            let start = Instant::now();
            case.run(rounds);
            start.elapsed()
        });
    });
    group.finish();
}

/// Runs all cases in turns, so that what else the machine does meets all alike, and tells the best
/// of each. They are made anew several times: where memory happens to lie decides over stalls, too.
fn time() {
    const SETS: usize = 5;
    const TURNS: usize = 40;
    const TURN: Duration = Duration::from_micros(500);
    let mut cycle = Duration::MAX;
    let mut best: Vec<Figure> = Vec::new();
    for _ in 0..SETS {
        let mut cases = cases();
        let rounds: Vec<_> = cases.iter_mut().map(|case| rounds_in(case, TURN)).collect();
        for _ in 0..TURNS {
            cycle = cycle.min(million_cycles());
            for (place, (case, &rounds)) in cases.iter_mut().zip(&rounds).enumerate() {
                let start = Instant::now();
                case.run(rounds);
                let figure = Figure::new(case, rounds, start.elapsed().as_nanos() as f64);
                match best.get_mut(place) {
                    Some(best) => best.cost = best.cost.min(figure.cost),
                    None => best.push(figure),
                }
            }
        }
    }
    let per_nanosecond = 1e6 / cycle.as_nanos() as f64;
    for figure in &mut best {
        figure.cost *= per_nanosecond;
    }
    println!("Best of {SETS} times {TURNS} turns; the processor ran at {per_nanosecond:.2} GHz.");
    report::print("processor cycles", &best);
}

/// How many rounds of a case fit.
fn rounds_in(case: &mut Case, time: Duration) -> u64 {
    let mut rounds = 1;
    loop {
        let start = Instant::now();
        case.run(rounds);
        if start.elapsed() >= time {
            return rounds;
        }
        rounds *= 2;
    }
}

/// How long a million cycles take: steps that wait for each other, of four cycles each (a 64-bit
/// multiplication of three and an addition of one, on x86 processors of the last ten years).
fn million_cycles() -> Duration {
    let start = Instant::now();
    let mut value = black_box(1u64);
    for _ in 0..250_000 {
        value = value
            .wrapping_mul(black_box(6_364_136_223_846_793_005))
            .wrapping_add(1);
    }
    black_box(value);
    start.elapsed()
}
