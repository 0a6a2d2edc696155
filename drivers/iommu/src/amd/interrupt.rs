//! Interrupt remapping: which interrupts a device may raise (AMD 48882, 2.2.5).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;
use vdpa::platform::InterruptMessage;
use virtq::DmaError;

use crate::hardware_table::{HardwareTable, TableSource};
use crate::{Interrupt, MESSAGE_WINDOW, RemapError, RemappedInterrupt};

use super::command::Command;
use super::device_table::InterruptTableBase;
use super::unit::Unit;

/// As many as any IOMMU has. Neither are there more that QEMU takes: it reads the delivery mode
/// that a message has in bits 10:8 of its index, and remaps the lowest two.
const ENTRIES_LOG2: u32 = 9;
const ENTRIES: u32 = 1 << ENTRIES_LOG2;
const VECTORS: u32 = 256;

/// RemapEn.
const VALID: u64 = 1 << 0;
/// Of a vector in 32-bit entries.
const VECTOR_SHIFT: u32 = 16;
const DESTINATION_SHIFT: u32 = 8;
/// Bits 31:24 of the destination, in the second word of 128-bit entries.
const DESTINATION_UPPER_SHIFT: u32 = 56;

/// What entries look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryFormat {
    /// 32 bits, of which 8 name the processor.
    Basic,
    /// 128 bits, of which 8 name the processor.
    Wide,
    /// 128 bits, of which 32 name the processor.
    WideX2Apic,
}

impl EntryFormat {
    const fn bits(self) -> usize {
        match self {
            Self::Basic => 32,
            Self::Wide | Self::WideX2Apic => 128,
        }
    }

    /// Fixed delivery to one processor, by its id.
    fn encode(self, interrupt: Interrupt) -> Result<[u64; 2], RemapError> {
        let vector = u64::from(interrupt.vector);
        let destination = u64::from(interrupt.destination);
        let largest = match self {
            Self::Basic | Self::Wide => 0xff,
            Self::WideX2Apic => u64::from(u32::MAX),
        };
        if destination > largest {
            return Err(RemapError::Destination);
        }
        let lower = (destination & 0xff_ffff) << DESTINATION_SHIFT | VALID;
        Ok(match self {
            Self::Basic => [lower | vector << VECTOR_SHIFT, 0],
            Self::Wide | Self::WideX2Apic => {
                let upper = destination >> 24 << DESTINATION_UPPER_SHIFT;
                [lower, vector | upper]
            }
        })
    }
}

/// The interrupts of one or several devices.
#[derive(Debug)]
pub(super) struct InterruptTable {
    table: HardwareTable,
    format: EntryFormat,
    used: [bool; ENTRIES as usize],
    /// The devices that have it.
    devices: Vec<u16>,
}

impl InterruptTable {
    pub(super) fn new(source: &TableSource, format: EntryFormat) -> Result<Self, DmaError> {
        Ok(Self {
            table: source.allocate(ENTRIES as usize * format.bits() / 8)?,
            format,
            used: [false; ENTRIES as usize],
            devices: Vec::new(),
        })
    }

    fn base(&self) -> InterruptTableBase {
        InterruptTableBase {
            addr: self.table.addr(),
            entries_log2: ENTRIES_LOG2,
        }
    }

    fn find(&self, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        let used = |index: &u32| self.used.get(*index as usize) != Some(&false);
        (0..ENTRIES).find(|index| wanted(*index) && !used(index))
    }

    fn set_used(&mut self, index: u32, used: bool) {
        if let Some(place) = self.used.get_mut(index as usize) {
            *place = used;
        }
    }

    /// The entry becomes valid, or ceases to be, in one step.
    fn write(&mut self, index: u32, entry: [u64; 2]) {
        let index = index as usize;
        match self.format {
            EntryFormat::Basic => {
                let shift = index % 2 * 32;
                let other = self.table.get(index / 2) & !(0xffff_ffff << shift);
                self.table.set(index / 2, other | entry[0] << shift);
            }
            EntryFormat::Wide | EntryFormat::WideX2Apic if entry[0] & VALID == 0 => {
                self.table.set(index * 2, entry[0]);
                self.table.set(index * 2 + 1, entry[1]);
            }
            EntryFormat::Wide | EntryFormat::WideX2Apic => {
                self.table.set(index * 2 + 1, entry[1]);
                self.table.set(index * 2, entry[0]);
            }
        }
    }

    fn commands(&self) -> Vec<Command> {
        let devices = self.devices.iter();
        devices.map(|device| Command::Interrupts(*device)).collect()
    }
}

/// Whose interrupts go through which table. Tables are made when they are needed, and stay: a
/// device has a few interrupts, and asks for them again and again.
pub(super) type InterruptTables = BTreeMap<u16, Arc<Mutex<InterruptTable>>>;

/// Which entries an interrupt may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Any.
    Any,
    /// One whose index ends with the vector: an I/O APIC learns the end of an interrupt by its
    /// vector, and takes what stands in its register for it.
    LikeVector,
}

impl Unit {
    /// Lets devices that have the same table, or none, raise an interrupt.
    pub(super) fn remap(
        self: &Arc<Self>,
        devices: &[u16],
        interrupt: Interrupt,
        place: Place,
    ) -> Result<Remapped, RemapError> {
        let entry = self.traits.entries.encode(interrupt)?;
        let table = self.interrupt_table(devices)?;
        let mut state = table.lock();
        let index = match place {
            Place::Any => state.find(|_| true),
            Place::LikeVector => state.find(|index| index % VECTORS == u32::from(interrupt.vector)),
        };
        let index = index.ok_or(RemapError::NoEntry)?;
        state.set_used(index, true);
        state.write(index, entry);
        let forgotten = self.run(state.commands());
        drop(state);
        let remapped = Remapped {
            unit: Arc::clone(self),
            table,
            index,
        };
        forgotten.map_err(|_| RemapError::Timeout)?;
        Ok(remapped)
    }

    fn interrupt_table(&self, devices: &[u16]) -> Result<Arc<Mutex<InterruptTable>>, RemapError> {
        let mut tables = self.interrupts.lock();
        let known = devices.iter().find_map(|device| tables.get(device));
        let table = match known {
            Some(table) => Arc::clone(table),
            None => {
                let table = InterruptTable::new(&self.source, self.traits.entries);
                Arc::new(Mutex::new(table.map_err(|_| RemapError::NoEntry)?))
            }
        };
        let mut state = table.lock();
        let mut commands = Vec::new();
        for device in devices {
            if tables.contains_key(device) {
                continue;
            }
            tables.insert(*device, Arc::clone(&table));
            state.devices.push(*device);
            self.devices
                .lock()
                .table
                .set_interrupts(*device, state.base());
            commands.push(Command::Device(*device));
        }
        drop(state);
        self.run(commands).map_err(|_| RemapError::Timeout)?;
        Ok(table)
    }
}

/// An entry of a table.
#[derive(Debug)]
pub(super) struct Remapped {
    unit: Arc<Unit>,
    table: Arc<Mutex<InterruptTable>>,
    index: u32,
}

impl RemappedInterrupt for Remapped {
    fn message(&self) -> InterruptMessage {
        InterruptMessage {
            address: MESSAGE_WINDOW.0,
            data: self.index,
        }
    }

    /// The index is where vector and delivery mode are (AMD 48882, 2.2.5.2).
    fn redirection(&self) -> u64 {
        self.index.into()
    }
}

impl Drop for Remapped {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        table.write(self.index, [0; 2]);
        // What the IOMMU may still remember is nobody's.
        if self.unit.run(table.commands()).is_ok() {
            table.set_used(self.index, false);
        }
    }
}
