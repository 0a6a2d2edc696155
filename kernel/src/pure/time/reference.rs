//! Measuring a counter of unknown rate against one of known rate.

/// A clock whose rate is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Ticks per second.
    pub(crate) hertz: u64,
    /// The bits that it counts with before it starts again from zero.
    pub(crate) bits: u32,
}

/// The counter at a moment, and the reference at nearly the same one.
#[derive(Clone, Copy)]
struct Sample {
    counter: u64,
    reference: u64,
}

/// How long a measurement takes: long enough that the time of a reading does not matter.
const MICROSECONDS: u64 = 2_000;
/// A sample is the best of so many, because the host may stop the processor between two readings.
const TRIES: usize = 4;
/// After so many readings a reference that has not got there counts as dead.
const PATIENCE: u32 = 1_000_000;
/// As does one that has not changed in so many.
const STILL: u32 = 10_000;

impl Reference {
    /// The rate of `counter` in ticks per second. `None`, if the reference, which `read` reads,
    /// stands still.
    pub(crate) fn measure(
        self,
        mut counter: impl FnMut() -> u64,
        mut read: impl FnMut() -> u64,
    ) -> Option<u64> {
        let mask = u64::MAX >> (u64::BITS - self.bits);
        let wanted = self.hertz * MICROSECONDS / 1_000_000;
        let first = sample(&mut counter, &mut read);
        let mut readings = 0;
        loop {
            let passed = read().wrapping_sub(first.reference) & mask;
            if passed >= wanted {
                break;
            }
            readings += 1;
            if readings == PATIENCE || passed == 0 && readings == STILL {
                return None;
            }
        }
        let last = sample(&mut counter, &mut read);
        let passed = last.reference.wrapping_sub(first.reference) & mask;
        let counted = last.counter.checked_sub(first.counter)?;
        u64::try_from(u128::from(counted) * u128::from(self.hertz) / u128::from(passed)).ok()
    }
}

/// Reads both clocks, the counter in the middle of the shortest reading of the reference.
fn sample(counter: &mut impl FnMut() -> u64, read: &mut impl FnMut() -> u64) -> Sample {
    let mut shortest = u64::MAX;
    let mut best = Sample {
        counter: 0,
        reference: 0,
    };
    for _ in 0..TRIES {
        let before = counter();
        let reference = read();
        let duration = counter().saturating_sub(before);
        if duration < shortest {
            shortest = duration;
            best = Sample {
                counter: before + duration / 2,
                reference,
            };
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const REFERENCE: Reference = Reference {
        hertz: 3_579_545,
        bits: 24,
    };

    /// Two clocks on one time line; a reading takes half a microsecond, every 1000th one takes 2
    /// ms.
    fn measure(counter_hertz: u64, start: u64) -> Option<u64> {
        let nanoseconds = Cell::new(start);
        let readings = Cell::new(0_u32);
        let read = |hertz: u64| {
            readings.set(readings.get() + 1);
            let pause = if readings.get() % 1000 == 3 {
                2_000_000
            } else {
                500
            };
            nanoseconds.set(nanoseconds.get() + pause);
            (u128::from(nanoseconds.get()) * u128::from(hertz) / 1_000_000_000) as u64
        };
        REFERENCE.measure(|| read(counter_hertz), || read(REFERENCE.hertz) & 0xff_ffff)
    }

    #[test]
    fn the_rate_is_found_though_the_processor_is_stopped_now_and_then() {
        for hertz in [100_000_000, 2_445_000_000, 5_000_000_000] {
            let measured = measure(hertz, 77).unwrap();
            assert!(
                measured.abs_diff(hertz) < hertz / 1000,
                "{measured} instead of {hertz}"
            );
        }
    }

    #[test]
    fn a_reference_may_start_again_from_zero() {
        let wrap = (1_u64 << 24) * 1_000_000_000 / REFERENCE.hertz;
        let measured = measure(1_000_000_000, wrap - 1_000_000).unwrap();
        assert!(measured.abs_diff(1_000_000_000) < 1_000_000, "{measured}");
    }

    #[test]
    fn a_dead_reference_measures_nothing() {
        let mut ticks = 0;
        let counter = || {
            ticks += 1;
            ticks
        };
        let mut readings = 0;
        let dead = || {
            readings += 1;
            42
        };
        assert_eq!(REFERENCE.measure(counter, dead), None);
        assert!(
            readings < 20_000,
            "a reading can take microseconds: {readings}"
        );
    }
}
