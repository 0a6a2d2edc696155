//! Whole machines, looked at from outside: the default unikernel and the test program on boards,
//! cards, disks and networks of all kinds.
//!
//! One program, so that the tests run side by side: most of them wait, for a timer of the guest, a
//! client that is slow on purpose, or an answer that must not come.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose case cannot be set up has failed"
)]

#[macro_use]
mod registry;

mod attacks;
mod hotplug;
mod http;
mod link;
mod machines;
mod network;
mod passthrough;
mod remote_disk;
mod shutdown;
mod vduse_linux;
mod vfio_user;
mod vhost_user;

use std::process::ExitCode;
use std::thread;

use libtest_mimic::{Arguments, Trial};

/// What begins first: what a kernel is built for, beside what works with the one that is there already, and then
/// what takes longest.
const FIRST: [&str; 13] = [
    "passthrough::unikernel",
    "vfio_user::unikernel",
    "vhost_user::unikernel_passes_its_tests::split/event_idx=on/indirect_desc=on/size=128",
    "hotplug::disk_goes_under_load_with_ifcvf",
    "vhost_user::unikernel",
    "network::flood::after_a_flood",
    "passthrough::",
    "vduse_linux::",
    "network::dhcp::",
    "vhost_user::linux",
    "hotplug::disk_goes_under_load",
    "machines::many::",
    "http::wire::who_takes_too_long",
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    // One more than there are processors, so that none is idle while a machine waits.
    arguments.test_threads.get_or_insert(processors + 1);
    let trials = [
        registry::trials(),
        passthrough::trials(),
        remote_disk::trials(),
        vduse_linux::trials(),
        vfio_user::trials(),
        vhost_user::trials(),
    ];
    let mut trials: Vec<Trial> = trials.into_iter().flatten().collect();
    trials.sort_by_key(|trial: &Trial| {
        let place = FIRST.iter().position(|name| trial.name().starts_with(name));
        place.unwrap_or(FIRST.len())
    });
    libtest_mimic::run(&arguments, trials).exit_code()
}
