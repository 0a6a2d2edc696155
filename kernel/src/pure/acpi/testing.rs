//! Tables as firmware would leave them in memory, for tests.

use std::collections::BTreeMap;
use std::vec::Vec;

use boot::PhysicalMemory;

use super::tables::HEADER;

/// Memory with a few tables in it, each at an address of its own.
#[derive(Default)]
pub(super) struct FakeMemory {
    pub(super) blocks: BTreeMap<u64, Vec<u8>>,
}

impl PhysicalMemory for FakeMemory {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let (start, block) = self.blocks.range(..=address).next_back()?;
        block.get((address - start) as usize..)?.get(..length)
    }
}

/// A table with a right length and sum.
pub(super) fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = [&signature[..], &[0; HEADER - 4], body].concat();
    let length = bytes.len() as u32;
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    fix_sum(&mut bytes, 9);
    bytes
}

/// A root pointer of the first or the second revision.
pub(super) fn rsdp(rsdt: u32, xsdt: Option<u64>) -> Vec<u8> {
    let mut bytes = b"RSD PTR \0RINGWY\0".to_vec();
    bytes.extend(rsdt.to_le_bytes());
    if let Some(xsdt) = xsdt {
        bytes[15] = 2;
        bytes.extend(36_u32.to_le_bytes());
        bytes.extend(xsdt.to_le_bytes());
        bytes.extend([0; 4]);
        fix_sum(&mut bytes[..20], 8);
        fix_sum(&mut bytes, 32);
    } else {
        fix_sum(&mut bytes, 8);
    }
    bytes
}

/// Makes the sum zero by the byte at `index`.
fn fix_sum(bytes: &mut [u8], index: usize) {
    bytes[index] = 0;
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[index] = sum.wrapping_neg();
}
