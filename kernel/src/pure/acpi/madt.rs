//! The MADT: where interrupt lines arrive (ACPI 6.5, 5.2.12).

use heapless::Vec;

use super::tables::{HEADER, u16_at, u32_at};

/// An input of an I/O APIC, and how the line behind it says that there is something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InterruptLine {
    /// Where the registers of the I/O APIC are.
    pub(crate) io_apic: u64,
    /// The number by which other tables know it.
    pub(crate) io_apic_id: u8,
    /// Which of its inputs it is.
    pub(crate) input: u8,
    /// The voltage.
    pub(crate) polarity: Polarity,
    /// The moment.
    pub(crate) trigger: Trigger,
}

/// Which voltage means an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polarity {
    High,
    Low,
}

/// Whether a line interrupts when it changes, or as long as it is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    Edge,
    Level,
}

const IO_APIC: u8 = 1;
const SOURCE_OVERRIDE: u8 = 2;
/// The structures follow the address of the local APIC and the flags.
const STRUCTURES: usize = HEADER + 8;

/// The most I/O APICs that are taken over.
const MAX_APICS: usize = 8;
/// There are no more ISA interrupts.
const ISA_LINES: usize = 16;

/// Where lines arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IoApic {
    /// The number by which other tables know it.
    id: u8,
    /// Where its registers are.
    registers: u64,
    /// The number of its first input among all of the machine.
    first: u32,
}

/// Where every interrupt line of the machine arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InterruptLines {
    apics: Vec<IoApic, MAX_APICS>,
    /// What the table says of an ISA interrupt: its number among all of the machine, and flags.
    isa: [Option<(u32, u16)>; ISA_LINES],
}

impl InterruptLines {
    /// What the table says.
    pub(super) fn read(madt: &[u8]) -> Self {
        let mut isa = [None; ISA_LINES];
        for (irq, line) in (0..).zip(&mut isa) {
            *line = structures(madt).find_map(|structure| source_override(structure, irq));
        }
        let apics = structures(madt)
            .filter_map(io_apic)
            .take(MAX_APICS)
            .collect();
        Self { apics, isa }
    }

    /// A PC whose firmware says nothing: its I/O APIC is where all have it (Intel 82093AA, 3.0).
    pub(super) fn of_a_pc() -> Self {
        let mut lines = Self::default();
        lines.apics.extend([IoApic {
            id: 0,
            registers: 0xfec0_0000,
            first: 0,
        }]);
        lines
    }

    /// The line of this number; one of a number below 16 is what firmware says of the ISA
    /// interrupt.
    pub(crate) fn usual(&self, number: u32) -> Option<InterruptLine> {
        let isa = usize::try_from(number)
            .ok()
            .and_then(|irq| self.isa.get(irq).copied());
        let (global, flags) = isa.flatten().unwrap_or((number, 0));
        // 5.2.12.5, table 5.26: what conforms to the bus is high and edges, on ISA.
        let polarity = match flags & 0b11 {
            0b11 => Polarity::Low,
            _ => Polarity::High,
        };
        let trigger = match flags >> 2 & 0b11 {
            0b11 => Trigger::Level,
            _ => Trigger::Edge,
        };
        self.line(global, trigger, polarity)
    }

    /// The line of this number among all of the machine.
    pub(crate) fn line(
        &self,
        global: u32,
        trigger: Trigger,
        polarity: Polarity,
    ) -> Option<InterruptLine> {
        let apics = self.apics.iter().filter(|apic| apic.first <= global);
        let apic = apics.max_by_key(|apic| apic.first)?;
        Some(InterruptLine {
            io_apic: apic.registers,
            io_apic_id: apic.id,
            input: u8::try_from(global - apic.first).ok()?,
            polarity,
            trigger,
        })
    }
}

/// Every structure in the table; a broken one ends it.
fn structures(madt: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = madt.get(STRUCTURES..).unwrap_or_default();
    core::iter::from_fn(move || {
        let length = usize::from(*rest.get(1)?);
        let structure = rest.get(..length).filter(|_| length >= 2)?;
        rest = &rest[length..];
        Some(structure)
    })
}

/// An I/O APIC (5.2.12.3).
fn io_apic(structure: &[u8]) -> Option<IoApic> {
    if structure.first() != Some(&IO_APIC) {
        return None;
    }
    Some(IoApic {
        id: *structure.get(2)?,
        registers: u32_at(structure, 4)?.into(),
        first: u32_at(structure, 8)?,
    })
}

/// The number of the input, and its flags, if the structure is about this interrupt of ISA
/// (5.2.12.5).
fn source_override(structure: &[u8], irq: u8) -> Option<(u32, u16)> {
    const ISA: u8 = 0;
    if !structure.starts_with(&[SOURCE_OVERRIDE]) || structure.get(2..4) != Some(&[ISA, irq]) {
        return None;
    }
    Some((u32_at(structure, 4)?, u16_at(structure, 8)?))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::super::testing::table;
    use super::*;

    const COM1: u8 = 4;

    fn madt(structures: &[&[u8]]) -> Vec<u8> {
        let local_apic_and_flags = [0, 0, 0xe0, 0xfe, 1, 0, 0, 0];
        let body = [&local_apic_and_flags, structures.concat().as_slice()].concat();
        table(b"APIC", &body)
    }

    fn io_apic(address: u32, first: u32) -> Vec<u8> {
        let head = [IO_APIC, 12, u8::try_from(first).unwrap(), 0];
        [&head[..], &address.to_le_bytes(), &first.to_le_bytes()].concat()
    }

    fn moved(irq: u8, global: u32, flags: u16) -> Vec<u8> {
        let head = [SOURCE_OVERRIDE, 10, 0, irq];
        [&head[..], &global.to_le_bytes(), &flags.to_le_bytes()].concat()
    }

    fn isa_line(madt: &[u8], irq: u8) -> Option<InterruptLine> {
        InterruptLines::read(madt).usual(irq.into())
    }

    #[test]
    fn a_line_can_be_named_by_its_number_among_all() {
        let table = madt(&[
            &io_apic(0xfec0_0000, 0),
            &io_apic(0xfec1_0000, 24),
            &moved(5, 9, 0),
        ]);
        let lines = InterruptLines::read(&table);
        let line = lines.line(30, Trigger::Level, Polarity::Low).unwrap();
        assert_eq!((line.io_apic, line.input), (0xfec1_0000, 6));
        assert_eq!(
            (line.trigger, line.polarity),
            (Trigger::Level, Polarity::Low)
        );
        assert_eq!(
            lines.usual(30).map(|line| line.trigger),
            Some(Trigger::Edge)
        );
        assert_eq!(lines.usual(5).map(|line| line.input), Some(9));
        let line = lines.line(5, Trigger::Edge, Polarity::High).unwrap();
        assert_eq!(line.input, 5, "no ISA interrupt is meant");
        assert_eq!(lines.usual(u32::MAX), None);
    }

    #[test]
    fn without_tables_a_pc_is_taken_for_one() {
        let line = InterruptLines::of_a_pc().usual(12).unwrap();
        assert_eq!((line.io_apic, line.input), (0xfec0_0000, 12));
        assert_eq!(InterruptLines::default().usual(12), None);
    }

    const LOCAL_APIC: &[u8] = &[0, 8, 0, 0, 1, 0, 0, 0];

    #[test]
    fn a_line_that_is_not_moved_is_an_edge_at_its_own_input() {
        let table = madt(&[LOCAL_APIC, &io_apic(0xfec0_0000, 0), &moved(9, 9, 0b1101)]);
        let line = InterruptLine {
            io_apic: 0xfec0_0000,
            io_apic_id: 0,
            input: 4,
            polarity: Polarity::High,
            trigger: Trigger::Edge,
        };
        assert_eq!(isa_line(&table, COM1), Some(line));
    }

    #[test]
    fn a_line_can_be_moved_to_another_input_and_apic() {
        let table = madt(&[
            &moved(COM1, 30, 0b1111),
            &io_apic(0xfec0_0000, 0),
            &io_apic(0xfec1_0000, 24),
        ]);
        let line = InterruptLine {
            io_apic: 0xfec1_0000,
            io_apic_id: 24,
            input: 6,
            polarity: Polarity::Low,
            trigger: Trigger::Level,
        };
        assert_eq!(isa_line(&table, COM1), Some(line));
    }

    #[test]
    fn without_an_io_apic_there_is_no_line() {
        assert_eq!(isa_line(&madt(&[LOCAL_APIC]), COM1), None);
        let above = madt(&[&io_apic(0xfec0_0000, 24)]);
        assert_eq!(isa_line(&above, COM1), None);
    }

    #[test]
    fn broken_structures_end_the_table() {
        let good = io_apic(0xfec0_0000, 0);
        for broken in [
            &[1, 0][..],
            &[1, 1],
            &[1],
            &[1, 200, 0, 0],
            &[1, 2],
            &[2, 4, 0, COM1],
        ] {
            let line = isa_line(&madt(&[&good, broken]), COM1);
            assert_eq!(line.map(|line| line.input), Some(4), "{broken:?}");
            isa_line(&madt(&[broken]), COM1);
        }
        assert_eq!(isa_line(&[], COM1), None);
    }
}
