//! How fast the time-stamp counter and the local APIC's timer run.
//!
//! The processor or a hypervisor may state it. Otherwise they are measured against the first clock
//! of known rate that the machine has; no one of these is on every machine.

use x86_64::instructions::port::Port;

use crate::machine::cpu;
use crate::machine::interrupts::apic::{self, TimerMode};
use crate::machine::interrupts::vector_numbers;
use crate::pure::acpi::PmTimer;
use crate::pure::time::reference::Reference;

/// The legacy interval timer's rate in Hz.
const PIT_HERTZ: u64 = 1_193_182;

/// Rates in Hz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frequencies {
    /// Of the time-stamp counter.
    pub(crate) tsc: u64,
    /// Of the local APIC's timer; only needed if the timer cannot wait for the counter.
    pub(crate) apic_timer: u64,
    /// Where the counter's rate is from, for people.
    pub(crate) source: &'static str,
}

/// Finds the rates. `None`, if every clock of the machine stands still.
pub(crate) fn frequencies(pm_timer: Option<PmTimer>) -> Option<Frequencies> {
    let stated = cpu::stated_frequencies();
    let (tsc, source) = stated
        .tsc
        .map(|tsc| (tsc, "stated by CPUID"))
        .or_else(|| {
            let tsc = measure_by_apic(stated.apic_timer?)?;
            Some((tsc, "measured by the local APIC"))
        })
        .or_else(|| {
            Some((
                measure_by_pm_timer(pm_timer?)?,
                "measured by the ACPI timer",
            ))
        })
        .or_else(|| Some((measure_by_pit()?, "measured by the interval timer")))
        .or_else(|| {
            // A machine without any of these is one that somebody plays, with a local APIC as QEMU
            // and KVM have it.
            let tsc = measure_by_apic(cpu::NANOSECONDS)?;
            Some((tsc, "guessed: the local APIC is taken to count nanoseconds"))
        })?;
    let apic_timer = match stated.apic_timer {
        Some(hertz) => hertz,
        None if cpu::has_tsc_deadline() => 0,
        None => measure_apic(tsc)?,
    };
    Some(Frequencies {
        tsc,
        apic_timer,
        source,
    })
}

/// The counter's rate by the local APIC's timer, whose rate is known.
fn measure_by_apic(hertz: u64) -> Option<u64> {
    count_down();
    let measured = Reference {
        hertz,
        bits: u32::BITS,
    }
    .measure(cpu::tsc, apic_ticks);
    apic::start_timer(0);
    measured
}

/// The local APIC's rate by the counter, whose rate is known.
fn measure_apic(tsc_hertz: u64) -> Option<u64> {
    count_down();
    let measured = Reference {
        hertz: tsc_hertz,
        bits: u64::BITS,
    }
    .measure(apic_ticks, cpu::tsc);
    apic::start_timer(0);
    measured
}

/// Starts the local APIC's timer. Interrupts are off, and its 32 bits last much longer than a
/// measurement.
fn count_down() {
    apic::set_timer(TimerMode::OneShot, vector_numbers::TIMER);
    apic::start_timer(u32::MAX);
}

fn apic_ticks() -> u64 {
    u64::from(u32::MAX - apic::timer_count())
}

/// By the ACPI power management timer (ACPI 6.5, 4.8.3.3).
fn measure_by_pm_timer(timer: PmTimer) -> Option<u64> {
    const HERTZ: u64 = 3_579_545;
    let mut port = Port::<u32>::new(timer.port);
    // SAFETY: reading the timer has no effect.
    Reference {
        hertz: HERTZ,
        bits: timer.bits,
    }
    .measure(cpu::tsc, || u64::from(unsafe { port.read() }))
}

/// By the second channel of the legacy interval timer, which is gated by software and raises no
/// interrupt.
fn measure_by_pit() -> Option<u64> {
    /// Bit 0 is the gate, bit 1 the speaker.
    const GATE: u16 = 0x61;
    const CHANNEL_2: u16 = 0x42;
    const COMMAND: u16 = 0x43;
    /// Channel 2, low byte then high byte, mode 0: count down once.
    const COUNT_DOWN: u8 = 0b1011_0000;
    const LATCH: u8 = 0b1000_0000;

    let mut gate = Port::<u8>::new(GATE);
    let mut channel = Port::<u8>::new(CHANNEL_2);
    let mut command = Port::<u8>::new(COMMAND);
    // SAFETY: reading the gate has no effect.
    let old_gate = unsafe { gate.read() };
    // SAFETY: the gate touches no memory.
    unsafe { gate.write(old_gate & !0b11 | 0b01) };
    // SAFETY: the timer's channel 2 touches no memory.
    unsafe { command.write(COUNT_DOWN) };
    for _ in 0..2 {
        // SAFETY: as above.
        unsafe { channel.write(u8::MAX) };
    }
    let read = || {
        // SAFETY: as above.
        unsafe { command.write(LATCH) };
        // SAFETY: as above.
        let low = unsafe { channel.read() };
        // SAFETY: as above.
        let high = unsafe { channel.read() };
        u64::from(u16::MAX - u16::from_le_bytes([low, high]))
    };
    let measured = Reference {
        hertz: PIT_HERTZ,
        bits: u16::BITS,
    }
    .measure(cpu::tsc, read);
    // SAFETY: the gate touches no memory.
    unsafe { gate.write(old_gate) };
    measured
}
