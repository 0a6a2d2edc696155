//! Interrupts and exceptions: descriptor tables, the local APIC, and vectors for drivers.
//!
//! There are no line interrupts: the legacy controller is masked, and devices send messages (MSI).

pub(crate) mod apic;
mod exceptions;
pub(crate) mod gdt;
mod idt;
mod pic;
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
