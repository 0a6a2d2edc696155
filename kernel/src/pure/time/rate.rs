//! The conversion between the ticks of a counter and nanoseconds, without a division each time.

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;
const FRACTION_BITS: u32 = 32;

/// The rate of a counter, ready for conversions both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Nanoseconds per tick, as a fixed-point number.
    nanoseconds: u64,
    /// Ticks per nanosecond, as a fixed-point number.
    ticks: u64,
}

impl Rate {
    /// The rate of a counter of `hertz` ticks per second. `None`, if it is below 1 kHz or above 1
    /// THz, where the fixed-point numbers lose their precision.
    pub(crate) fn from_hertz(hertz: u64) -> Option<Self> {
        const PLAUSIBLE: core::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000;
        PLAUSIBLE.contains(&hertz).then(|| Self {
            nanoseconds: fixed_point(NANOSECONDS_PER_SECOND, hertz),
            ticks: fixed_point(hertz, NANOSECONDS_PER_SECOND),
        })
    }

    /// How long `ticks` last, in nanoseconds.
    pub(crate) fn nanoseconds(self, ticks: u64) -> u64 {
        scale(ticks, self.nanoseconds)
    }

    /// How many ticks pass in `nanoseconds`, at the least.
    pub(crate) fn ticks(self, nanoseconds: u64) -> u64 {
        scale(nanoseconds, self.ticks)
    }
}

/// `numerator / denominator` as a fixed-point number.
fn fixed_point(numerator: u64, denominator: u64) -> u64 {
    let quotient = (u128::from(numerator) << FRACTION_BITS) / u128::from(denominator);
    u64::try_from(quotient).expect("plausible rates keep the quotient below 2^20 before the point")
}

fn scale(value: u64, factor: u64) -> u64 {
    let scaled = (u128::from(value) * u128::from(factor)) >> FRACTION_BITS;
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_agree_with_division() {
        for hertz in [
            1_000_000,
            1_193_182,
            62_500_000,
            2_445_403_000,
            5_000_000_000,
        ] {
            let rate = Rate::from_hertz(hertz).unwrap();
            let day = 24 * 3600 * hertz;
            let nanoseconds = rate.nanoseconds(day);
            let exact = 24 * 3600 * NANOSECONDS_PER_SECOND;
            assert!(
                nanoseconds.abs_diff(exact) < exact / 100_000_000,
                "{hertz}: {nanoseconds}"
            );
            let ticks = rate.ticks(exact);
            assert!(ticks.abs_diff(day) <= day / 1_000_000, "{hertz}: {ticks}");
        }
    }

    #[test]
    fn implausible_rates_are_refused() {
        assert_eq!(Rate::from_hertz(0), None);
        assert_eq!(Rate::from_hertz(999), None);
        assert_eq!(Rate::from_hertz(u64::MAX), None);
    }

    #[test]
    fn long_times_saturate() {
        assert_eq!(
            Rate::from_hertz(1_000).unwrap().nanoseconds(u64::MAX),
            u64::MAX
        );
    }
}
