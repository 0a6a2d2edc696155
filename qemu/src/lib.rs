//! Everything between `cargo run` and a guest that runs: the bare-metal target and QEMU are made
//! sure of, the kernel is built, a disk image is made from a directory, QEMU is started with a
//! typed machine description, and its end is turned into an exit code.
//!
//! The binary of this package and the test harness use the same parts. Nothing here knows what the
//! guest does inside the machine.

#![forbid(unsafe_code)]

pub mod accel;
pub mod bench;
pub mod build;
pub mod device;
pub mod exit;
pub mod format;
pub mod guest;
pub mod host_check;
pub mod image;
pub mod interactive;
pub mod interrupt;
pub mod iommu;
pub mod kernel_file;
pub mod machine;
pub mod network;
pub mod passthrough;
pub mod path;
pub mod port;
pub mod prepare;
pub mod progress;
pub mod running;
pub mod tree;
