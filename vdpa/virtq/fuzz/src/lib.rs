//! Programs that fuzzing writes: steps of one side of a queue, between arbitrary acts of the other.
//!
//! An input is a string of bytes without rules, so that every input is a program. A run panics
//! where the side under test breaks a promise. Nothing here depends on a fuzzer: the tests of
//! `virtq` replay the inputs in `corpus/` with the same code.

mod guest;
mod hostile_device;
mod hostile_driver;
mod input;
mod layout;
mod offers;
mod returns;
mod spans;

pub use hostile_device::hostile_device;
pub use hostile_driver::hostile_driver;
