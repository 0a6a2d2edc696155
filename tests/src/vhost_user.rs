//! A virtio block device in this process for a guest of QEMU: `vhost-user-blk-pci` passes the
//! guest's memory and queues over a socket, and `virtq::device` processes the rings.
//!
//! It is there so that drivers that nobody here wrote, and our own through a machine that nobody
//! here wrote, meet our device side. It migrates nothing and keeps no log of written pages.
//!
//! Sources: the vhost-user protocol (docs/interop/vhost-user.rst of QEMU), VIRTIO 1.2, 5.2.

mod backend;
mod blk;
mod front_end;
mod memory;
mod monitor;
mod server;
#[cfg(test)]
mod tests;
mod vring;
mod wake;
mod worker;

pub use blk::{Access, Disk, Requests};
pub use front_end::FrontEnd;
pub use monitor::{Monitor, MonitorSocket};
pub use server::{Report, Server};
