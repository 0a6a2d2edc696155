//! What takes as long as the driver looks at it: a reset, and the stop of a queue.

use crate::plan::Delay;

/// How many looks it still takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looks {
    Left(u32),
    Forever,
}

impl Looks {
    /// Begins something; `None` if it is done already.
    pub(crate) fn begin(delay: Delay) -> Option<Self> {
        match delay {
            Delay::AtOnce => None,
            Delay::After(looks) => Some(Self::Left(looks)),
            Delay::Never => Some(Self::Forever),
        }
    }

    /// Looks at it, and says whether it is done. What takes for ever goes on when it is told a
    /// shorter time.
    pub(crate) fn look(&mut self, delay: Delay) -> bool {
        if *self == Self::Forever {
            *self = Self::begin(delay).unwrap_or(Self::Left(0));
        }
        match self {
            Self::Left(0) => return true,
            Self::Left(looks) => *looks -= 1,
            Self::Forever => {}
        }
        false
    }
}
