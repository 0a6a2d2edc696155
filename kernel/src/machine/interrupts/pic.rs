//! The legacy interrupt controller, a pair of 8259s: only how to silence it.

use x86_64::instructions::port::Port;

/// The mask registers of the two controllers.
const MASKS: [u16; 2] = [0x21, 0xa1];

/// Masks every line. A machine without the controller ignores it.
pub(super) fn mask_all() {
    for port in MASKS {
        let mut mask = Port::<u8>::new(port);
        // SAFETY: masking an interrupt line touches no memory.
        unsafe { mask.write(0xff) };
    }
}
