//! The smallest Ringway application: it says what it runs on, and ends.

#![no_std]
#![no_main]

use kernel::System;

kernel::entry!(main);

async fn main(system: System) {
    log::info!("Hello from a unikernel.");
    for (key, value) in system.command_line().entries() {
        log::info!("argument {key} = {value}");
    }
}
