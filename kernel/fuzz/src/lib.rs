//! What the fuzz targets do with their input, and the parts of the kernel that they do it to: those that the kernel does
//! not show, and that need no machine.

#![allow(
    dead_code,
    reason = "the parts that use the rest drive hardware and are not built for the host"
)]

extern crate alloc;

#[path = "../../src/acpi/mod.rs"]
mod acpi;
#[path = "../../src/address_space.rs"]
mod address_space;
#[path = "../../src/command_line.rs"]
mod command_line;
#[path = "../../src/dhcp/mod.rs"]
mod dhcp;
#[path = "../../src/ethernet.rs"]
mod ethernet;
#[path = "../../src/ip_config.rs"]
mod ip_config;
mod programs;
#[path = "../../src/memory/regions.rs"]
mod regions;

mod memory {
    pub(crate) use crate::regions;
}

pub use programs::{acpi, command_line, dhcp, frames, memory_map};
