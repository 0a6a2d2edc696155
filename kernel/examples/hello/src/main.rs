//! The smallest Ringway application: it says what it runs on, and ends.

#![no_std]
#![no_main]

use kernel::System;
use kernel::log::info;

kernel::entry!(main);

async fn main(system: System) {
    info!("Hello from a unikernel.");
    for (key, value) in system.command_line().entries() {
        info!("argument {key} = {value}");
    }
}
