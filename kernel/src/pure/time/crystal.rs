//! What leaf 0x15 of CPUID states (Intel SDM vol. 2, CPUID).

/// The frequencies of the counter and of the crystal in Hz, from leaf 0x15 and the base frequency,
/// which the counter runs at. Zero stands for what is not stated.
pub(crate) fn frequencies_from_ratio(
    denominator: u32,
    numerator: u32,
    crystal: u32,
    base: u64,
) -> (Option<u64>, Option<u64>) {
    let (denominator, numerator) = (u64::from(denominator), u64::from(numerator));
    if denominator == 0 || numerator == 0 {
        return (None, None);
    }
    let crystal = match u64::from(crystal) {
        0 => base * denominator / numerator,
        stated => stated,
    };
    if crystal == 0 {
        (None, None)
    } else {
        (Some(crystal * numerator / denominator), Some(crystal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_the_crystal_times_the_ratio() {
        assert_eq!(
            frequencies_from_ratio(2, 168, 24_000_000, 0),
            (Some(2_016_000_000), Some(24_000_000))
        );
    }

    #[test]
    fn a_missing_crystal_follows_from_the_base_frequency() {
        let (tsc, crystal) = frequencies_from_ratio(2, 200, 0, 2_400_000_000);
        assert_eq!((tsc, crystal), (Some(2_400_000_000), Some(24_000_000)));
    }

    #[test]
    fn zeros_state_nothing() {
        assert_eq!(frequencies_from_ratio(0, 0, 0, 0), (None, None));
        assert_eq!(frequencies_from_ratio(0, 168, 24_000_000, 1), (None, None));
        assert_eq!(frequencies_from_ratio(2, 168, 0, 0), (None, None));
    }
}
