//! Machines that fuzzing makes up: functions whose configuration space or registers say anything,
//! before the drivers.
//!
//! An input is a string of bytes without rules, so that every input is a machine and what happens
//! to it. A run panics where a driver breaks a promise. Nothing here depends on a fuzzer: the tests
//! of `pci` replay the inputs in `corpus/` with the same code.

mod configuration_space;
mod function;
mod input;
mod machine;
mod registers;
mod virtio;

pub use configuration_space::configuration_space;
pub use registers::registers;
