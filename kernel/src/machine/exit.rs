//! How the kernel ends: an exit code for the host, or the power off.

use core::ptr::with_exposed_provenance_mut;

use spin::Once;
use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

use crate::machine::console;
use crate::machine::memory::{self, Access};
use crate::pure::acpi::{PowerOff, SleepRegister};
use crate::pure::exit_code::ExitCode;
use crate::pure::memory::regions::PAGE_SIZE;

/// The I/O port of QEMU's `isa-debug-exit`, as the host program sets it up.
const DEBUG_EXIT: u16 = 0xf4;

static POWER_OFF: Once<PowerOff> = Once::new();

/// Says how to power the machine off, should it have no other way to end. A register that cannot be
/// mapped is none.
pub(crate) fn set_power_off(power_off: PowerOff) {
    if let SleepRegister::Memory(address) = power_off.register {
        let page = address - address % PAGE_SIZE;
        if memory::map(page..page.saturating_add(PAGE_SIZE), Access::Device).is_err() {
            return;
        }
    }
    POWER_OFF.call_once(|| power_off);
}

/// Ends the machine. With QEMU's `isa-debug-exit` the host learns the code; without it the power
/// goes off, and if even that is not to be had the processor halts.
pub(crate) fn exit(code: ExitCode) -> ! {
    interrupts::disable();
    console::drain();
    let mut debug_exit = Port::new(DEBUG_EXIT);
    // SAFETY: on a machine without the device the port is unused; with it, QEMU ends here.
    unsafe { debug_exit.write(code.debug_exit_value()) };
    if let Some(power_off) = POWER_OFF.get() {
        switch_off(power_off);
    }
    loop {
        hlt();
    }
}

fn switch_off(power_off: &PowerOff) {
    match power_off.register {
        SleepRegister::Pm1Control(port) => {
            let mut port = Port::<u16>::new(port);
            // SAFETY: the firmware says that this powers off.
            unsafe { port.write(power_off.value) };
        }
        SleepRegister::Port(port) => {
            let mut port = Port::<u8>::new(port);
            // SAFETY: as above; the register has 8 bits.
            unsafe { port.write(power_off.value as u8) };
        }
        SleepRegister::Memory(address) => {
            let register = with_exposed_provenance_mut::<u8>(address as usize);
            // SAFETY: as above; the register is mapped.
            unsafe { register.write_volatile(power_off.value as u8) };
        }
    }
}
