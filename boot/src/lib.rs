//! How a Ringway kernel starts, in two halves.
//!
//! For the bare-metal target this crate is the PVH entry point: it brings the processor from 32-bit
//! mode to long mode, copies what the loader said into a [`BootInfo`] and calls the kernel. It sets
//! up no memory protection, no interrupts and no devices; that is the kernel's.
//!
//! For the host it is a build dependency: an application's build script calls `boot::link()`, which
//! passes the linker script to the linker.

#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
mod image;
mod info;
#[cfg(not(target_os = "none"))]
mod link;
#[cfg(target_os = "none")]
mod page_tables;

#[cfg(target_os = "none")]
pub use self::entry::BootMemory;
#[cfg(target_os = "none")]
pub use self::entry::boot_stack;
#[cfg(target_os = "none")]
pub use self::image::{Section, image, rodata, text};
pub use self::info::{BootInfo, MemoryKind, MemoryRegion, PhysicalMemory};
#[cfg(not(target_os = "none"))]
pub use self::link::link;
#[cfg(target_os = "none")]
pub use self::page_tables::IDENTITY_MAPPED;
