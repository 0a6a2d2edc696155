//! What drives the machine, and what works with that: built for bare metal alone.

#[cfg(feature = "vhost")]
pub(crate) mod clients;
pub(crate) mod console;
pub(crate) mod cpu;
pub(crate) mod devices;
pub(crate) mod drivers;
pub(crate) mod exit;
pub(crate) mod interrupts;
#[cfg(feature = "iommu")]
pub(crate) mod iommus;
pub(crate) mod logger;
pub(crate) mod memory;
#[cfg(feature = "mgmt")]
pub(crate) mod mover;
pub(crate) mod network;
pub(crate) mod panic;
pub(crate) mod platform;
pub(crate) mod shell;
pub(crate) mod start;
pub(crate) mod sync;
pub(crate) mod system;
pub(crate) mod task;
pub(crate) mod time;
