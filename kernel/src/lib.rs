//! The kernel under a Ringway unikernel: memory, interrupts, time, tasks, console, and the end.
//!
//! It runs one application on one processor of a PC or of a machine that QEMU plays. Before the
//! application's `main` runs, the kernel has found the devices and given them to the drivers; what
//! the drivers need of a kernel they get through [`vdpa::Platform`]. There are no processes, no
//! file system and no protocol here: those are libraries of the application.
//!
//! # An application
//!
//! An application is a package with three files. `Cargo.toml` depends on `kernel`, and on `boot`
//! for building:
//!
//! ```toml
//! [dependencies]
//! kernel = { path = "../kernel" }
//!
//! [build-dependencies]
//! boot = { path = "../boot" }
//! ```
//!
//! `build.rs` passes the linker script on:
//!
//! ```ignore
//! fn main() {
//!     boot::link();
//! }
//! ```
//!
//! `src/main.rs` has an asynchronous `main`, which may return nothing, an [`ExitCode`], or a
//! `Result` of either:
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! use kernel::log::info;
//!
//! kernel::entry!(main);
//!
//! async fn main(system: kernel::System) {
//!     info!("started with {:?}", system.command_line());
//! }
//! ```
//!
//! Built for `x86_64-unknown-none`, it boots with QEMU's `-kernel`.
//!
//! What it needs of other crates to use the kernel, the kernel hands on, in the versions that it
//! has itself: [`embassy_net`] for the network, [`embassy_time`] for times, and [`log`].
//!
//! # The command line
//!
//! | key | value |
//! |---|---|
//! | `log` | `off`, `error`, `warn`, `info` (without the key), `debug`, `trace` |
//! | `ip` | `dhcp` (without the key), or `ADDRESS/LENGTH[,gw=ADDRESS][,dns=ADDRESS]`; anything else is an error |
//! | `ip6` | `auto` (without the key), `off`, or `ADDRESS/LENGTH[,gw=ADDRESS][,dns=ADDRESS]`; anything else is an error |
//! | `net` | who drives network devices: `virtio` (without the key), or `vhost`, a client task with its own memory |
//! | `blk` | who drives block devices, likewise |
//! | `iommu` | with the feature `iommu`: `strict` (without the key), `required`, or `off`; anything else is an error |
//! | `vhost.noiommu` | `unsafe` lets clients have devices whose memory accesses nothing isolates |
//! | `virtio_mmio.device` | a virtio device in memory, as Linux has it: `SIZE@ADDRESS:INTERRUPT[:ID]`; may be there several times |
//! | `pci.ecam` | where PCI configuration space is in memory, if the firmware does not say so: `0xe0000000` on QEMU's `microvm` |
//! | `ifcvf` | `qemu` lets the driver of Intel's VFs have QEMU's own modern functions that offer `ACCESS_PLATFORM` |
//!
//! # The end
//!
//! When `main` returns, the devices are brought to rest and the machine ends: with QEMU's
//! `isa-debug-exit` the host gets the exit code, otherwise the power goes off. A panic or an
//! exception of the processor ends it at once, with a message, the return addresses that the stack
//! holds (`addr2line -e KERNEL -fC ADDRESS...` names them), and [`ExitCode::PANIC`].

#![no_std]
#![cfg_attr(
    test,
    expect(
        dead_code,
        reason = "the parts that use it drive hardware and are not built for the host"
    )
)]

#[cfg(any(target_os = "none", test))]
extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(test)]
mod corpus;
#[cfg(target_os = "none")]
mod machine;
#[cfg(any(target_os = "none", test))]
mod pure;

#[cfg(target_os = "none")]
#[doc(no_inline)]
pub use {embassy_net, embassy_time, log};

#[cfg(target_os = "none")]
pub use self::{
    machine::{
        memory::heap::MemoryFigures,
        network::{AcceptError, NetworkError, SOCKETS, accept},
        shell::ConsoleCommand,
        start::{MainFuture, main_future},
        system::System,
        task::spawn,
    },
    pure::{
        command_line::CommandLine,
        exit_code::{ExitCode, Termination},
        static_config::BadIpConfig,
    },
};

/// Makes an `async fn main(system: System)` the application that the kernel runs. What it returns
/// is a [`Termination`].
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn __ringway_main(system: $crate::System) -> $crate::MainFuture {
            $crate::main_future($main(system))
        }
    };
}
