//! ACPI tables that nobody's firmware has made, before the parsers.
//!
//! An input is a table with any length and sum, which are made right before it is read. A run
//! panics where a parser breaks a promise. Nothing here depends on a fuzzer: the tests of `iommu`
//! replay the inputs in `corpus/` with the same code.

use iommu::tables::{Dmar, Ivrs, Viot};
use vdpa::Node;
use vdpa::dma::IsolationUnit;

/// A table is parsed, and its units are asked for devices on and below some bridges.
pub fn iommu_tables(data: &[u8]) {
    let mut bytes = data.to_vec();
    make_header_right(&mut bytes);
    let ways: [(u32, &[u32]); 3] = [
        (0x00fb, &[]),
        (0x0100, &[0x0008]),
        (0x1_0208, &[0x18, 0x118]),
    ];
    let units = ways.map(|(id, bridges)| {
        IsolationUnit::of_requesters(&Node::root("function"), vec![id], bridges.to_vec())
    });
    if let Ok(table) = Dmar::parse(&bytes) {
        dmar(&table, &units);
    }
    if let Ok(table) = Ivrs::parse(&bytes) {
        ivrs(&table, &units);
    }
    if let Ok(table) = Viot::parse(&bytes) {
        viot(&table);
    }
}

fn make_header_right(table: &mut [u8]) {
    const CHECKSUM: usize = 9;
    if table.len() > CHECKSUM
        && let Ok(length) = u32::try_from(table.len())
    {
        table[4..8].copy_from_slice(&length.to_le_bytes());
        table[CHECKSUM] = 0;
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        table[CHECKSUM] = sum.wrapping_neg();
    }
}

type Units = [std::sync::Arc<IsolationUnit>; 3];

fn dmar(table: &Dmar, units: &Units) {
    let scopes = table.units.iter().flat_map(|drhd| &drhd.scopes);
    for scope in scopes {
        assert!(!scope.path.is_empty(), "a scope without a path");
    }
    for unit in units {
        let _ = table.units.iter().any(|drhd| drhd.covers(unit));
        let _ = table.ats_ports.iter().any(|ports| ports.covers(unit));
        let _ = table.integrated.iter().any(|devices| devices.covers(unit));
    }
    for reserved in &table.reserved {
        assert!(
            reserved.base <= reserved.limit,
            "memory ends before it begins"
        );
    }
}

fn ivrs(table: &Ivrs, units: &Units) {
    for iommu in &table.units {
        assert!(iommu.base != 0, "an IOMMU without registers");
        for unit in units {
            let known = unit
                .requester_id()
                .and_then(|id| iommu.device((id & 0xffff) as u16));
            assert!(
                known.is_some() || !iommu.covers(unit),
                "covers what it does not know"
            );
        }
    }
    for memory in &table.memory {
        assert!(
            memory.start.checked_add(memory.length).is_some(),
            "memory without an end"
        );
    }
}

fn viot(table: &Viot) {
    for range in &table.pci_ranges {
        assert!(
            table.iommus.contains(&range.iommu),
            "an IOMMU that is not there"
        );
        let function =
            |segment: &u16, function: &u16| u32::from(*segment) << 16 | u32::from(*function);
        let first = function(range.segments.start(), range.functions.start());
        let last = function(range.segments.end(), range.functions.end());
        assert_eq!(range.endpoint(first), Some(range.endpoint));
        assert!(
            range.endpoint(last) >= range.endpoint(first),
            "endpoints fall"
        );
    }
}
