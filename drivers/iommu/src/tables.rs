//! The ACPI tables that say where the IOMMUs of a machine are and which devices are behind each:
//! DMAR, IVRS and VIOT.
//!
//! They are parsed from bytes; the kernel finds them and reads memory. Firmware is believed
//! nothing, and no part of a damaged table counts: an IOMMU that is left out lets its devices reach
//! everything. Structures of unknown types are skipped, as the specifications want.

#![forbid(unsafe_code)]

mod dmar;
mod ivrs;
mod viot;

pub use dmar::{
    Andd, Atsr, DeviceScope, Dmar, DmarFlags, Drhd, DrhdFlags, Rhsa, Rmrr, Satc, ScopeKind,
};
pub use ivrs::{
    AcpiDevice, DeviceEntry, DteSettings, Ivhd, IvhdFlags, Ivmd, IvmdFlags, Ivrs, SpecialDevice,
    SpecialKind, Uid,
};
pub use viot::{MmioEndpoint, PciRange, Viot, ViotIommu};

/// The size of the header that every table begins with (ACPI 6.5, 5.2.6).
const HEADER: usize = 36;
/// A table that claims to be larger is damaged: those of the largest servers have some 20 KiB.
const LARGEST: usize = 256 << 10;

/// What is wrong with a table. Numbers count bytes from the table's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// It is another table.
    #[error("the table has another signature")]
    Signature,
    /// It is cut short, or larger than any real one.
    #[error("the table's length is wrong")]
    Length,
    /// The sum of its bytes is not zero.
    #[error("the table's checksum is wrong")]
    Checksum,
    /// A structure is too short for its type, or ends behind what it is in.
    #[error("the structure at byte {0} has a wrong length")]
    Structure(usize),
    /// Registers or memory where none can be.
    #[error("the structure at byte {0} has an impossible address")]
    Address(usize),
    /// A range of devices that ends before it begins, or does not end.
    #[error("the structure at byte {0} has an impossible range of devices")]
    Range(usize),
    /// A device without a path, or with an impossible one.
    #[error("the structure at byte {0} has an impossible device path")]
    Path(usize),
    /// Two structures are about the same.
    #[error("two structures describe the same IOMMU or device")]
    Duplicate,
    /// What a structure refers to is not there.
    #[error("the structure at byte {0} refers to an IOMMU that is not in the table")]
    Reference(usize),
}

/// The bytes of a table with this signature, without what is behind it.
fn table<'a>(bytes: &'a [u8], signature: &[u8; 4]) -> Result<&'a [u8], TableError> {
    let field = |at: usize| -> Option<[u8; 4]> { bytes.get(at..)?.first_chunk().copied() };
    if field(0).ok_or(TableError::Length)? != *signature {
        return Err(TableError::Signature);
    }
    let length = field(4).map_or(0, u32::from_le_bytes);
    let table = usize::try_from(length)
        .ok()
        .filter(|length| (HEADER..=LARGEST).contains(length))
        .and_then(|length| bytes.get(..length))
        .ok_or(TableError::Length)?;
    if table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) != 0 {
        return Err(TableError::Checksum);
    }
    Ok(table)
}

/// A part of a table, and where in the table it begins.
#[derive(Clone, Copy, Debug)]
struct Structure<'a> {
    at: usize,
    bytes: &'a [u8],
}

impl<'a> Structure<'a> {
    fn field<const SIZE: usize>(&self, offset: usize) -> Result<[u8; SIZE], TableError> {
        self.from(offset)?
            .first_chunk()
            .copied()
            .ok_or(TableError::Structure(self.at))
    }

    fn u8(&self, offset: usize) -> Result<u8, TableError> {
        self.field(offset).map(u8::from_le_bytes)
    }

    fn u16(&self, offset: usize) -> Result<u16, TableError> {
        self.field(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> Result<u32, TableError> {
        self.field(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64, TableError> {
        self.field(offset).map(u64::from_le_bytes)
    }

    /// What begins at the offset.
    fn from(&self, offset: usize) -> Result<&'a [u8], TableError> {
        self.bytes
            .get(offset..)
            .ok_or(TableError::Structure(self.at))
    }

    /// The structures that begin at the offset. `length` reads the length of the one that its bytes
    /// begin with.
    fn inner(
        &self,
        offset: usize,
        length: fn(&[u8]) -> Option<usize>,
    ) -> Result<Structures<'a>, TableError> {
        Ok(Structures {
            rest: self.from(offset)?,
            at: self.at + offset,
            length,
        })
    }
}

/// One structure after the other, until the first of an impossible length.
#[derive(Debug)]
struct Structures<'a> {
    rest: &'a [u8],
    at: usize,
    length: fn(&[u8]) -> Option<usize>,
}

impl<'a> Iterator for Structures<'a> {
    type Item = Result<Structure<'a>, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.at;
        let split = (self.length)(self.rest)
            .filter(|length| *length > 0)
            .and_then(|length| self.rest.split_at_checked(length));
        let Some((bytes, rest)) = split else {
            self.rest = &[];
            return Some(Err(TableError::Structure(at)));
        };
        self.rest = rest;
        self.at += bytes.len();
        Some(Ok(Structure { at, bytes }))
    }
}

/// The length in the third and fourth byte, which all three tables have for their structures.
fn length_of_structure(bytes: &[u8]) -> Option<usize> {
    let length = u16::from_le_bytes(*bytes.get(2..)?.first_chunk()?);
    Some(length.into()).filter(|length| *length >= 4)
}
