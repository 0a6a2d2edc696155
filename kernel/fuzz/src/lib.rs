//! What the fuzz targets do with their input, and the parts of the kernel that they do it to: those
//! that the kernel does not show, and that need no machine.

#![allow(
    dead_code,
    unused_imports,
    reason = "the parts that use the rest drive hardware and are not built for the host"
)]

extern crate alloc;

// A module that `path` names has its own modules beside it, and one inside a module that stands for
// the folder has them below it, as in the kernel.
#[path = "../../src/pure"]
mod pure {
    pub(crate) mod acpi;
    pub(crate) mod address_space;
    pub(crate) mod command_line;
    pub(crate) mod dhcp;
    pub(crate) mod ethernet;
    pub(crate) mod ip_config;
    pub(crate) mod memory {
        pub(crate) mod regions;
    }
    pub(crate) mod static_config;
}
mod programs;

pub use programs::{acpi, command_line, dhcp, frames, memory_map, start_info};
