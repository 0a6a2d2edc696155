//! What the processor has, by CPUID (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E).

use core::arch::x86_64::{__cpuid, __cpuid_count, _rdrand64_step, _rdtsc};

use crate::pure::time::crystal::frequencies_from_ratio;

const BASIC: u32 = 0;
const FEATURES: u32 = 1;
const TSC_AND_CRYSTAL: u32 = 0x15;
const FREQUENCIES: u32 = 0x16;
const HYPERVISOR: u32 = 0x4000_0000;
const HYPERVISOR_FREQUENCIES: u32 = 0x4000_0010;
const EXTENDED: u32 = 0x8000_0000;
const EXTENDED_FEATURES: u32 = 0x8000_0001;
const ADDRESS_SIZES: u32 = 0x8000_0008;

/// The time-stamp counter.
pub(crate) fn tsc() -> u64 {
    // SAFETY: every processor with long mode has the counter.
    unsafe { _rdtsc() }
}

/// Whether there is a local APIC.
pub(crate) fn has_apic() -> bool {
    __cpuid(FEATURES).edx & 1 << 9 != 0
}

/// Whether the local APIC has x2APIC mode.
pub(crate) fn has_x2apic() -> bool {
    __cpuid(FEATURES).ecx & 1 << 21 != 0
}

/// Whether the local APIC's timer can wait for a value of the time-stamp counter.
pub(crate) fn has_tsc_deadline() -> bool {
    __cpuid(FEATURES).ecx & 1 << 24 != 0
}

/// Whether this is a virtual machine whose monitor says so.
pub(crate) fn has_hypervisor() -> bool {
    __cpuid(FEATURES).ecx & 1 << 31 != 0
}

/// Whether pages can be forbidden to execute.
pub(crate) fn has_no_execute() -> bool {
    has_leaf(EXTENDED, EXTENDED_FEATURES) && __cpuid(EXTENDED_FEATURES).edx & 1 << 20 != 0
}

/// A number that others cannot guess: from the processor if it makes such numbers, otherwise from
/// the time of this call, which is the best there is.
pub(crate) fn random() -> u64 {
    const TRIES: u32 = 10;
    let mut number = 0;
    if __cpuid(FEATURES).ecx & 1 << 30 != 0 {
        for _ in 0..TRIES {
            // SAFETY: the processor has the instruction.
            if unsafe { _rdrand64_step(&mut number) } == 1 {
                return number;
            }
        }
    }
    // The lower bits of the counter hold the chance; a multiplication spreads them (Knuth, TAOCP
    // vol. 3, 6.4).
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    tsc().wrapping_mul(SPREAD)
}

/// The bits that a physical address can have.
pub(crate) fn physical_address_mask() -> u64 {
    const UNSTATED: u32 = 36;
    const AT_LEAST: u32 = 32;
    const AT_MOST: u32 = 52;
    let bits = if has_leaf(EXTENDED, ADDRESS_SIZES) {
        (__cpuid(ADDRESS_SIZES).eax & 0xff).clamp(AT_LEAST, AT_MOST)
    } else {
        UNSTATED
    };
    (1 << bits) - 1
}

/// The rate of what counts nanoseconds, in Hz.
pub(crate) const NANOSECONDS: u64 = 1_000_000_000;

/// The frequencies that the processor or a hypervisor states, in Hz. `None` for what is not stated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StatedFrequencies {
    /// Of the time-stamp counter.
    pub(crate) tsc: Option<u64>,
    /// Of the local APIC's timer.
    pub(crate) apic_timer: Option<u64>,
}

/// What is known of the clocks without measuring.
pub(crate) fn stated_frequencies() -> StatedFrequencies {
    let hypervisor = hypervisor_frequencies();
    let (tsc, crystal) = processor_frequencies();
    StatedFrequencies {
        tsc: hypervisor.tsc.or(tsc),
        apic_timer: hypervisor.apic_timer.or(crystal),
    }
}

/// What a hypervisor states. QEMU's local APIC counts nanoseconds, with TCG and with KVM alike.
fn hypervisor_frequencies() -> StatedFrequencies {
    if __cpuid(FEATURES).ecx & 1 << 31 == 0 {
        return StatedFrequencies::default();
    }
    let leaf = __cpuid(HYPERVISOR);
    if leaf.eax >= HYPERVISOR_FREQUENCIES {
        let leaf = __cpuid(HYPERVISOR_FREQUENCIES);
        let hertz = |kilohertz: u32| Some(u64::from(kilohertz) * 1000).filter(|hertz| *hertz != 0);
        let stated = StatedFrequencies {
            tsc: hertz(leaf.eax),
            apic_timer: hertz(leaf.ebx),
        };
        if stated.tsc.is_some() {
            return stated;
        }
    }
    let signature = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    let apic_timer = match signature.as_flattened() {
        b"TCGTCGTCGTCG" | b"KVMKVMKVM\0\0\0" => Some(NANOSECONDS),
        _ => None,
    };
    StatedFrequencies {
        tsc: None,
        apic_timer,
    }
}

/// The frequencies of the time-stamp counter and of the crystal, which also drives the APIC's
/// timer.
fn processor_frequencies() -> (Option<u64>, Option<u64>) {
    if !has_leaf(BASIC, TSC_AND_CRYSTAL) {
        return (None, None);
    }
    let ratio = __cpuid_count(TSC_AND_CRYSTAL, 0);
    let base = if has_leaf(BASIC, FREQUENCIES) {
        u64::from(__cpuid(FREQUENCIES).eax & 0xffff) * 1_000_000
    } else {
        0
    };
    frequencies_from_ratio(ratio.eax, ratio.ebx, ratio.ecx, base)
}

fn has_leaf(range: u32, leaf: u32) -> bool {
    (leaf..leaf | 0xffff).contains(&__cpuid(range).eax)
}
