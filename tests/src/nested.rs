//! A machine in a machine: QEMU with an IOMMU runs a Linux, and that passes its virtio functions to
//! a guest in a QEMU of its own, by `vfio-pci`.
//!
//! For the inner guest this is pass-through as it is on hardware: real configuration space, MSI-X
//! and DMA behind translation tables of the host's kernel. Everything is translated code, so it
//! needs neither rights nor hardware, and says nothing about speed.

mod host;
mod run;

pub use host::{Host, Identity, Nested};
pub use run::{end_of_inner, inner_console};

/// The script that the Linux runs. It gets two files: `/functions` with an address in each line,
/// and `/inner` with the command that starts the inner machine.
const SCRIPT: &str = include_str!("nested/host.sh");

/// What it puts before each line of the inner machine's console.
const INNER: &str = "inner: ";

/// What it says at the end, and the inner QEMU's exit status after it.
const END: &str = "host: the inner machine ended with ";
