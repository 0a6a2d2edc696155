//! The parent driver: operations as register accesses, bounded waits, shared vectors, clean
//! failures.

mod conformance;
mod doorbells;
mod interrupts;
mod operations;
mod probe;
mod removal;
mod suspend;

use crate::bench::{Bench, Calls, NAME, address, driver, running};
