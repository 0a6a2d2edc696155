//! Which interrupt vectors are for whom.

use core::ops::RangeInclusive;

/// The first vector that is not an exception.
pub(super) const FIRST_INTERRUPT: u8 = 32;
/// The vectors that drivers can have. Below them lie those that firmware may have left in the
/// legacy controller, above them the kernel's own.
pub(super) const FOR_DEVICES: RangeInclusive<u8> = 0x30..=0xef;
/// The kernel's timer.
pub(crate) const TIMER: u8 = 0xf0;
/// What the local APIC raises for an interrupt that went away again. It wants no end-of-interrupt.
pub(super) const SPURIOUS: u8 = 0xff;

const _: () = assert!(*FOR_DEVICES.start() >= FIRST_INTERRUPT);
