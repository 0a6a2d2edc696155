//! The tables that lead from a device to its page table: root and context tables, and in scalable
//! mode those of PASIDs (VT-d 4.1, 9.1 to 9.6).

use alloc::collections::BTreeMap;

use virtq::{DmaAddr, DmaError};

use crate::hardware_table::{HardwareTable, TableSource};
use crate::page_table::PAGE;

use super::capability::{Capabilities, Mode};

const TABLE: usize = PAGE as usize;
const PRESENT: u64 = 1;

/// The tables of all devices of one unit.
#[derive(Debug)]
pub(super) struct Contexts {
    mode: Mode,
    source: TableSource,
    root: HardwareTable,
    /// By the entry of the root table, which has two for each bus in scalable mode.
    tables: BTreeMap<usize, HardwareTable>,
}

/// What a device's requests are translated with, as its context entry says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context([u64; 2]);

impl Context {
    /// A page table, in legacy mode.
    pub(super) fn legacy(page_table: DmaAddr, address_width: u64, domain: u16) -> Self {
        // Translation type 0: no translated requests, so no device TLBs.
        Self([
            page_table.0 | PRESENT,
            address_width | u64::from(domain) << 8,
        ])
    }

    /// Tables of PASIDs, in scalable mode. Requests without one have PASID 0.
    pub(super) fn scalable(pasids: &PasidTables) -> Self {
        Self([pasids.directory.addr().0 | PRESENT, 0])
    }
}

impl Contexts {
    pub(super) fn new(mode: Mode, source: &TableSource) -> Result<Self, DmaError> {
        Ok(Self {
            mode,
            source: source.clone(),
            root: source.allocate(TABLE)?,
            tables: BTreeMap::new(),
        })
    }

    /// What the root table's register says (11.4.5).
    pub(super) fn root(&self) -> u64 {
        let mode = match self.mode {
            Mode::Legacy => 0,
            Mode::Scalable => 1 << 10,
        };
        self.root.addr().0 | mode
    }

    /// Makes room for a device.
    pub(super) fn prepare(&mut self, device: u16) -> Result<(), DmaError> {
        let (place, _) = self.place(device);
        if !self.tables.contains_key(&place) {
            let table = self.source.allocate(TABLE)?;
            self.root.set(place, table.addr().0 | PRESENT);
            self.tables.insert(place, table);
        }
        Ok(())
    }

    /// Says what the device's requests are translated with; with nothing, they are refused. There
    /// is room for it.
    pub(super) fn set(&mut self, device: u16, context: Option<Context>) {
        let (place, index) = self.place(device);
        let Some(table) = self.tables.get_mut(&place) else {
            return;
        };
        match context {
            Some(Context([low, high])) => {
                table.set(index + 1, high);
                table.set(index, low);
            }
            None => {
                table.set(index, 0);
                table.set(index + 1, 0);
            }
        }
    }

    /// The entry of the root table, and the word of the context table.
    fn place(&self, device: u16) -> (usize, usize) {
        let device = usize::from(device);
        match self.mode {
            // Both tables have 256 entries of two words (9.1, 9.3).
            Mode::Legacy => (device >> 8 << 1, (device & 0xff) * 2),
            // A word of the root table for half a bus, and entries of four words (9.2, 9.4).
            Mode::Scalable => (device >> 7, (device & 0x7f) * 4),
        }
    }
}

/// The tables of the PASIDs of one domain's devices, which use no PASID.
#[derive(Debug)]
pub(super) struct PasidTables {
    directory: HardwareTable,
    /// The directory leads to it.
    _table: HardwareTable,
}

impl PasidTables {
    pub(super) fn new(
        source: &TableSource,
        page_table: DmaAddr,
        address_width: u64,
        domain: u16,
        capabilities: Capabilities,
    ) -> Result<Self, DmaError> {
        // The entry of a PASID (9.6): translation by second-stage tables alone is type 2.
        const SECOND_STAGE: u64 = 2 << 6;
        let snoop_tables = u64::from(capabilities.snoops_scalable()) << 23;
        let snoop_pages = u64::from(capabilities.forces_snooping()) << 24;
        let mut table = source.allocate(TABLE)?;
        table.set(1, u64::from(domain) | snoop_tables | snoop_pages);
        table.set(
            0,
            page_table.0 | address_width << 2 | SECOND_STAGE | PRESENT,
        );
        let mut directory = source.allocate(TABLE)?;
        directory.set(0, table.addr().0 | PRESENT);
        Ok(Self {
            directory,
            _table: table,
        })
    }
}
