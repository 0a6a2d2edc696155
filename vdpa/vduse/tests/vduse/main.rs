//! Devices of tasks, through the vDPA bus and their queues: what they do for their driver, and what
//! a task cannot do to it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../examples/ram_disk/disk.rs"]
mod disk;

mod conformance;
mod consumers;
mod driver;
mod echo;
mod faults;
mod hostile;
mod mirror;
mod property;
mod world;
