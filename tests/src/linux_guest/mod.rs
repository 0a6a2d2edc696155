//! A Debian Linux as a guest: the kernel and busybox from Debian's packages, and an initramfs made here
//! that runs one script.
//!
//! It is a driver that nobody here wrote, for what this project offers as a device.

mod debian;
mod initramfs;

pub use debian::{Debian, Missing};
pub use initramfs::Initramfs;
