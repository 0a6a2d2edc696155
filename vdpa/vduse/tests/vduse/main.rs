//! Devices of tasks, through the vDPA bus and their queues: what they do for their driver, and what
//! a task cannot do to it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[path = "../../examples/ram_disk/disk.rs"]
mod disk;

mod conformance;
mod consumers;
mod driver;
mod echo;
mod faults;
mod hostile;
mod mirror;
mod packet_filter;
mod property;
mod world;
