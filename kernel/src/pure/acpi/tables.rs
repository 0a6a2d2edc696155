//! Finding tables: the root pointer (RSDP), the list of tables (RSDT or XSDT), and a table by its
//! signature.
//!
//! ACPI 6.5, 5.2.5 to 5.2.8.

use boot::PhysicalMemory;

/// The size of the header that every table begins with.
pub(super) const HEADER: usize = 36;
/// A table that claims to be larger is damaged.
const LARGEST: usize = 1 << 20;

/// The list of tables, with the size of an address in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root<'a> {
    list: &'a [u8],
    entry_size: usize,
}

/// The list of tables that the root pointer at `rsdp` names.
pub(super) fn root<'a>(memory: &'a impl PhysicalMemory, rsdp: u64) -> Option<Root<'a>> {
    const SIZE: usize = 20;
    const SIZE_2: usize = 36;
    let pointer = memory.bytes(rsdp, SIZE)?;
    if !pointer.starts_with(b"RSD PTR ") || sum(pointer) != 0 {
        return None;
    }
    let revision = pointer[15];
    if revision >= 2
        && let Some(extended) = memory.bytes(rsdp, SIZE_2).filter(|bytes| sum(bytes) == 0)
        && let Some(list) = table(memory, u64_at(extended, 24)?, b"XSDT")
    {
        return Some(Root {
            list,
            entry_size: 8,
        });
    }
    let list = table(memory, u32_at(pointer, 16)?.into(), b"RSDT")?;
    Some(Root {
        list,
        entry_size: 4,
    })
}

/// The first table with the signature.
pub(super) fn find<'a>(
    memory: &'a impl PhysicalMemory,
    root: Root<'a>,
    signature: &'a [u8; 4],
) -> Option<&'a [u8]> {
    each(memory, root, signature).next()
}

/// The tables with the signature.
pub(super) fn each<'a>(
    memory: &'a impl PhysicalMemory,
    root: Root<'a>,
    signature: &'a [u8; 4],
) -> impl Iterator<Item = &'a [u8]> {
    root.list[HEADER..]
        .chunks_exact(root.entry_size)
        .filter_map(move |entry| {
            let address = match root.entry_size {
                8 => u64_at(entry, 0)?,
                _ => u32_at(entry, 0)?.into(),
            };
            table(memory, address, signature)
        })
}

/// The table at `address`, if it has the signature and the right sum.
pub(super) fn table<'a>(
    memory: &'a impl PhysicalMemory,
    address: u64,
    signature: &[u8; 4],
) -> Option<&'a [u8]> {
    let header = memory.bytes(address, HEADER)?;
    if !header.starts_with(signature) {
        return None;
    }
    let length = usize::try_from(u32_at(header, 4)?).ok()?;
    if !(HEADER..=LARGEST).contains(&length) {
        return None;
    }
    memory
        .bytes(address, length)
        .filter(|bytes| sum(bytes) == 0)
}

/// The 16 bits at `offset`.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u16::from_le_bytes)
}

/// The 32 bits at `offset`.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

/// The 64 bits at `offset`.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u64::from_le_bytes)
}

/// The sum of all bytes, which is zero in a sound table.
fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}
