//! Rates of counters, and how they are measured.

pub(crate) mod crystal;
pub(crate) mod rate;
pub(crate) mod reference;
