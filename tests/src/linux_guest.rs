//! A Debian Linux as a guest: the kernel and busybox from Debian's packages, and an initramfs made
//! here that runs one script.
//!
//! It is a driver that nobody here wrote, for what this project offers as a device, and the host of
//! a machine in a machine.

pub(crate) mod apt;
pub(crate) mod debian;
mod emulator;
mod initramfs;
mod tools;

pub use debian::{Debian, Missing};
pub use emulator::{emulator, with_libraries};
pub use initramfs::Initramfs;
pub use tools::Tools;
