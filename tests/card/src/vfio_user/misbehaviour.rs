//! What a card does wrong on request, as words for a command line.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::places::Places;
use crate::{Card, Delay, Generation, Kind, ListFault, Plan, Refused};

/// Changes of the configuration that no driver waits out.
const UNSETTLED: u32 = u32::MAX;

/// Something that is wrong with a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// A reset does not end.
    NeverLeavesReset,
    /// A queue does not stop.
    NeverStops,
    /// It takes no vector.
    RefusesVectors,
    /// It does not take this one.
    RefusesVector(u16),
    /// Its configuration changes with each read.
    UnsettledGeneration,
    /// The live-migration block says this of each queue that has stopped.
    CorruptRingState(u32),
    /// It is gone, as if it had been pulled out: everything reads as ones.
    Vanishes,
    /// It goes after so many accesses to its registers.
    VanishesAfter(u64),
    /// Its capabilities are wrong.
    BadCapabilities(BadCapabilities),
}

/// What is wrong with the capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadCapabilities {
    /// Their list leads back to its beginning.
    Cycle,
    /// Their list leads into the header.
    Misplaced,
    /// That of the common configuration is not there.
    NoCommon,
    /// A structure ends behind its BAR.
    Outside,
    /// The end of a structure does not fit 32 bits.
    Wraps,
    /// A structure is in a BAR that is not there.
    NoBar,
    /// The common configuration is too short.
    Short,
}

/// No misbehaviour has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown; there are never-leaves-reset, never-stops, refuses-vectors, refuses-vector=N, \
     unsettled-generation, corrupt-ring-state=WORD, vanishes, vanishes-after=ACCESSES and \
     bad-capabilities=cycle|misplaced|no-common|outside|wraps|no-bar|short"
)]
pub struct UnknownMisbehaviour;

impl Misbehaviour {
    /// Changes the plan of a card that is to be born with it.
    pub(super) fn spoil(self, plan: &mut Plan) {
        if let Self::BadCapabilities(bad) = self {
            bad.spoil(plan);
        }
    }

    /// Lets a card begin.
    pub(super) fn begin(self, card: &Card) {
        match self {
            Self::Vanishes => card.remove(),
            Self::NeverLeavesReset => card.set_faults(|faults| faults.reset = Delay::Never),
            Self::NeverStops => card.set_faults(|faults| faults.stop = Delay::Never),
            Self::RefusesVectors => card.set_faults(|faults| faults.refused = Refused::Everything),
            Self::RefusesVector(vector) => card.set_faults(|faults| {
                faults.refused = Refused::Vectors(BTreeSet::from([vector]));
            }),
            Self::UnsettledGeneration => {
                card.set_faults(|faults| faults.generation = Generation::Changes(UNSETTLED));
            }
            Self::CorruptRingState(word) => {
                card.set_faults(|faults| faults.ring_words = Some(word));
            }
            Self::VanishesAfter(accesses) => {
                card.set_faults(|faults| faults.gone_after = Some(accesses));
            }
            Self::BadCapabilities(_) => {}
        }
    }

    /// Whether a card that is in use already can begin.
    pub(super) fn can_begin_late(self) -> bool {
        !matches!(self, Self::BadCapabilities(_))
    }
}

impl BadCapabilities {
    fn spoil(self, plan: &mut Plan) {
        match self {
            Self::Cycle => plan.list = ListFault::Cycle,
            Self::Misplaced => plan.list = ListFault::Misplaced,
            Self::NoCommon | Self::Outside | Self::Wraps | Self::NoBar | Self::Short => {
                let mut capabilities = Places::new(plan, config_len(plan)).capabilities();
                // The common configuration comes first.
                if self == Self::NoCommon {
                    capabilities.remove(0);
                } else if let Some(common) = capabilities.first_mut() {
                    match self {
                        Self::Outside => common.length = 0x1000_0000,
                        Self::Wraps => common.offset = 0xffff_ff00,
                        Self::NoBar => common.bar = 5,
                        _ => common.length = 8,
                    }
                }
                plan.capabilities = Some(capabilities);
            }
        }
    }
}

/// The bytes of the device-specific configuration, which are never what is wrong.
fn config_len(plan: &Plan) -> usize {
    match plan.product.kind() {
        Kind::Net => 12,
        Kind::Blk => 60,
    }
}

impl FromStr for Misbehaviour {
    type Err = UnknownMisbehaviour;

    fn from_str(text: &str) -> Result<Self, UnknownMisbehaviour> {
        let (name, value) = match text.split_once('=') {
            None => (text, None),
            Some((name, value)) => (name, Some(value)),
        };
        Ok(match (name, value) {
            ("never-leaves-reset", None) => Self::NeverLeavesReset,
            ("never-stops", None) => Self::NeverStops,
            ("refuses-vectors", None) => Self::RefusesVectors,
            ("refuses-vector", Some(vector)) => Self::RefusesVector(number(vector)?),
            ("unsettled-generation", None) => Self::UnsettledGeneration,
            ("corrupt-ring-state", Some(word)) => Self::CorruptRingState(number(word)?),
            ("vanishes", None) => Self::Vanishes,
            ("vanishes-after", Some(accesses)) => Self::VanishesAfter(number(accesses)?),
            ("bad-capabilities", Some(kind)) => Self::BadCapabilities(kind.parse()?),
            _ => return Err(UnknownMisbehaviour),
        })
    }
}

impl FromStr for BadCapabilities {
    type Err = UnknownMisbehaviour;

    fn from_str(name: &str) -> Result<Self, UnknownMisbehaviour> {
        Ok(match name {
            "cycle" => Self::Cycle,
            "misplaced" => Self::Misplaced,
            "no-common" => Self::NoCommon,
            "outside" => Self::Outside,
            "wraps" => Self::Wraps,
            "no-bar" => Self::NoBar,
            "short" => Self::Short,
            _ => return Err(UnknownMisbehaviour),
        })
    }
}

/// A number, or one in hexadecimal digits after `0x`.
fn number<N: TryFrom<u64>>(text: &str) -> Result<N, UnknownMisbehaviour> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let number = number.ok().and_then(|number| N::try_from(number).ok());
    number.ok_or(UnknownMisbehaviour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read_and_others_are_not() {
        for (text, expected) in [
            ("vanishes", Some(Misbehaviour::Vanishes)),
            ("refuses-vector=3", Some(Misbehaviour::RefusesVector(3))),
            (
                "corrupt-ring-state=0xffff0001",
                Some(Misbehaviour::CorruptRingState(0xffff_0001)),
            ),
            (
                "bad-capabilities=wraps",
                Some(Misbehaviour::BadCapabilities(BadCapabilities::Wraps)),
            ),
            ("refuses-vector=65536", None),
            ("refuses-vector", None),
            ("vanishes=1", None),
            ("corrupt-ring-state=0x", None),
            ("bad-capabilities=good", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
