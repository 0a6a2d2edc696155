//! Which devices a structure is about (VT-d 4.1, 8.3.1).

use alloc::vec::Vec;

use vdpa::dma::IsolationUnit;

use crate::tables::{Structure, TableError};

/// The path follows the type, the length, flags, a reserved byte, the id and the bus.
const PATH: usize = 6;

/// One device, or all below one bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceScope {
    /// What it is.
    pub kind: ScopeKind,
    /// The id of an I/O APIC, the number of a HPET, or the number of a device with a
    /// [name](super::Andd).
    pub enumeration_id: u8,
    /// The bus from which the path leads.
    pub start_bus: u8,
    /// The way from there: of each bridge and last of the device, `device << 3 | function`. It is
    /// not empty.
    pub path: Vec<u8>,
}

/// What a scope is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeKind {
    /// A PCI function.
    Endpoint,
    /// A bridge, with everything below it.
    Bridge,
    /// An I/O APIC.
    IoApic,
    /// A HPET that sends messages.
    Hpet,
    /// A device that only ACPI knows.
    Acpi,
}

impl DeviceScope {
    /// The requester id, which does not depend on the numbers of other buses, if no bridge is on
    /// the path.
    #[must_use]
    pub fn requester_id(&self) -> Option<u16> {
        match *self.path {
            [device] => Some(u16::from_be_bytes([self.start_bus, device])),
            _ => None,
        }
    }

    /// Whether it is about the requester `id` below these bridges, which are named from the root
    /// on. All are of one segment.
    fn covers(&self, id: u32, bridges: &[u32]) -> bool {
        let subtree = match self.kind {
            ScopeKind::Endpoint => false,
            ScopeKind::Bridge => true,
            _ => return false,
        };
        let way = || bridges.iter().chain([&id]).map(|id| id & 0xffff);
        let Some((first, path)) = self.path.split_first() else {
            return false;
        };
        let first = u32::from(self.start_bus) << 8 | u32::from(*first);
        let Some(start) = way().position(|id| id == first) else {
            return false;
        };
        let mut rest = way().skip(start + 1).map(|id| id & 0xff);
        path.iter()
            .all(|device| rest.next() == Some(u32::from(*device)))
            && (subtree || rest.next().is_none())
    }

    /// The scope, if it is of a known kind.
    fn read(structure: Structure<'_>) -> Result<Option<Self>, TableError> {
        let kind = match structure.u8(0)? {
            1 => ScopeKind::Endpoint,
            2 => ScopeKind::Bridge,
            3 => ScopeKind::IoApic,
            4 => ScopeKind::Hpet,
            5 => ScopeKind::Acpi,
            _ => return Ok(None),
        };
        let (steps, odd) = structure.from(PATH)?.as_chunks::<2>();
        let sound = |[device, function]: &[u8; 2]| *device < 32 && *function < 8;
        if steps.is_empty() || !odd.is_empty() || !steps.iter().all(sound) {
            return Err(TableError::Path(structure.at));
        }
        Ok(Some(Self {
            kind,
            enumeration_id: structure.u8(4)?,
            start_bus: structure.u8(5)?,
            path: steps
                .iter()
                .map(|[device, function]| device << 3 | function)
                .collect(),
        }))
    }
}

/// The scopes from `offset` to the structure's end.
pub(super) fn scopes(
    structure: Structure<'_>,
    offset: usize,
) -> Result<Vec<DeviceScope>, TableError> {
    let mut scopes = Vec::new();
    for scope in structure.inner(offset, length_of_scope)? {
        scopes.extend(DeviceScope::read(scope?)?);
    }
    Ok(scopes)
}

/// Whether one of the scopes is about one of the unit's requesters.
pub(super) fn covered(scopes: &[DeviceScope], segment: u16, unit: &IsolationUnit) -> bool {
    let ids = unit.requester_ids().iter();
    ids.filter(|id| **id >> 16 == u32::from(segment))
        .any(|id| scopes.iter().any(|scope| scope.covers(*id, unit.bridges())))
}

fn length_of_scope(bytes: &[u8]) -> Option<usize> {
    let length = usize::from(*bytes.get(1)?);
    Some(length).filter(|length| *length >= PATH)
}
