//! What it costs to map, unmap and translate, with few and with many mappings, beside the tables of
//! others in the same run.

mod tables;

use std::hint::black_box;
use std::time::{Duration, Instant};

use tables::{Contender, Table};

/// How many mappings a table holds.
const SIZES: [usize; 3] = [1, 1_000, 100_000];

/// Operations between two looks at the clock, at least; small tables come in numbers.
const OPERATIONS: usize = 1_000;

const PAGE: u64 = 0x1000;

/// What is measured.
const ACTIONS: [&str; 3] = ["map", "unmap", "translate"];

fn main() {
    // `cargo bench` says `--bench`; `cargo test` only wants to see every case work.
    let turns = if std::env::args().any(|argument| argument == "--bench") {
        60
    } else {
        1
    };
    let mut cases: Vec<_> = SIZES
        .into_iter()
        .flat_map(|size| Contender::ALL.map(|contender| Case::new(contender, size)))
        .collect();
    let mut cycle = Duration::MAX;
    for _ in 0..turns {
        cycle = cycle.min(million_cycles());
        // In turns, so that what else the machine does meets all alike.
        for case in &mut cases {
            case.turn();
        }
    }
    report(&cases, turns, 1e6 / cycle.as_nanos() as f64);
}

/// Some tables of one kind and size, and what was the best of each action so far.
struct Case {
    contender: Contender,
    size: usize,
    tables: Vec<Box<dyn Table>>,
    /// The mappings in an order that is not that of their addresses: table, first address.
    order: Vec<(usize, u64)>,
    best: [Duration; 3],
}

impl Case {
    fn new(contender: Contender, size: usize) -> Self {
        let count = OPERATIONS.div_ceil(size);
        let mut tables: Vec<_> = (0..count).map(|_| contender.table()).collect();
        let mut order: Vec<_> = (0..count)
            .flat_map(|table| (0..size).map(move |index| (table, first(index))))
            .collect();
        for (table, first) in &order {
            tables[*table].map(*first, PAGE, place(*first));
        }
        shuffle(&mut order);
        Self {
            contender,
            size,
            tables,
            order,
            best: [Duration::MAX; 3],
        }
    }

    /// Unmaps some mappings, maps them again and looks them up.
    fn turn(&mut self) {
        self.order.rotate_left(OPERATIONS);
        let chosen = &self.order[..OPERATIONS];
        let start = Instant::now();
        for (table, first) in chosen {
            self.tables[*table].unmap(*first, PAGE);
        }
        let unmapped = Instant::now();
        for (table, first) in chosen {
            self.tables[*table].map(*first, PAGE, place(*first));
        }
        let mapped = Instant::now();
        let mut sum = 0u64;
        for (table, first) in chosen {
            sum = sum.wrapping_add(self.tables[*table].translate(black_box(first + 8)));
        }
        let translated = Instant::now();
        let expected = chosen
            .iter()
            .fold(0u64, |sum, (_, first)| sum.wrapping_add(place(*first) + 8));
        assert_eq!(sum, expected, "every table leads to the same place");
        let times = [mapped - unmapped, unmapped - start, translated - mapped];
        for (best, time) in self.best.iter_mut().zip(times) {
            *best = (*best).min(time);
        }
    }
}

/// Where a mapping starts: with a free page after each, so that nobody merges them.
fn first(index: usize) -> u64 {
    (1 << 40) + index as u64 * 2 * PAGE
}

/// Where it leads, which is further away for each.
fn place(first: u64) -> u64 {
    first * 3
}

/// Puts the items into an order that looks random and is always the same.
fn shuffle<T>(items: &mut [T]) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for place in (1..items.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let other = (state >> 33) as usize % (place + 1);
        items.swap(place, other);
    }
}

fn report(cases: &[Case], turns: usize, per_nanosecond: f64) {
    println!("Best of {turns} turns; the processor ran at {per_nanosecond:.2} GHz.");
    println!();
    println!("Per operation, in processor cycles:");
    println!();
    println!(
        "{:<10} {:>9} {:<28} {:>9} {:>10}",
        "action", "mappings", "contender", "cycles", "to ours"
    );
    for (action, name) in ACTIONS.iter().enumerate() {
        for case in cases {
            let cycles = |case: &Case| {
                case.best[action].as_nanos() as f64 * per_nanosecond / OPERATIONS as f64
            };
            let ours = cases
                .iter()
                .find(|other| other.size == case.size && other.contender == Contender::Ours)
                .map_or(f64::NAN, cycles);
            println!(
                "{:<10} {:>9} {:<28} {:>9.1} {:>10.2}",
                name,
                case.size,
                case.contender.name(),
                cycles(case),
                cycles(case) / ours,
            );
        }
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
