//! Interrupts and exceptions: descriptor tables, the local APIC, and vectors for drivers.
//!
//! The legacy controller is masked, and devices send messages (MSI). The lines of the serial port
//! and of virtio devices in memory are turned into messages by an I/O APIC.

pub(crate) mod apic;
mod exceptions;
pub(crate) mod gdt;
mod idt;
pub(crate) mod io_apic;
pub(crate) mod line;
mod pic;
mod trap_frame;
pub(crate) mod vector_numbers;
pub(crate) mod vectors;

/// Loads the descriptor tables, from when on an exception ends in a message. Interrupts stay off.
pub(crate) fn init_exceptions() {
    gdt::init();
    idt::init();
}

/// Silences the legacy interrupt controller and starts the local APIC.
///
/// # Errors
/// What the machine lacks.
pub(crate) fn init() -> Result<(), apic::ApicError> {
    pic::mask_all();
    apic::init()
}
