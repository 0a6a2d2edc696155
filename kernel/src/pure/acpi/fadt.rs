//! The FADT: fixed registers, and where the rest is described (ACPI 6.5, 5.2.9).

use super::tables::{u32_at, u64_at};

/// The power management timer: a counter of 3.579545 MHz in an I/O port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PmTimer {
    /// The port, which is read 32 bits at a time.
    pub(crate) port: u16,
    /// How many bits count: 24 or 32.
    pub(crate) bits: u32,
}

const DSDT: usize = 40;
const PM_TIMER: usize = 76;
const PM_TIMER_LENGTH: usize = 91;
const FLAGS: usize = 112;
const EXTENDED_DSDT: usize = 140;

const TIMER_HAS_32_BITS: u32 = 1 << 8;
const HARDWARE_REDUCED: u32 = 1 << 20;

/// The timer, if the machine has it.
pub(super) fn pm_timer(fadt: &[u8]) -> Option<PmTimer> {
    let port = u16::try_from(u32_at(fadt, PM_TIMER)?).ok()?;
    if port == 0 || fadt.get(PM_TIMER_LENGTH) != Some(&4) || is_hardware_reduced(fadt) {
        return None;
    }
    let bits = if flags(fadt) & TIMER_HAS_32_BITS == 0 {
        24
    } else {
        32
    };
    Some(PmTimer { port, bits })
}

/// Where the table of definitions (DSDT) is.
pub(super) fn dsdt(fadt: &[u8]) -> Option<u64> {
    let extended = u64_at(fadt, EXTENDED_DSDT).filter(|address| *address != 0);
    extended.or_else(|| u32_at(fadt, DSDT).map(u64::from))
}

/// Whether the machine lacks the fixed registers (ACPI 6.5, 4.1).
pub(super) fn is_hardware_reduced(fadt: &[u8]) -> bool {
    flags(fadt) & HARDWARE_REDUCED != 0
}

fn flags(fadt: &[u8]) -> u32 {
    u32_at(fadt, FLAGS).unwrap_or(0)
}
