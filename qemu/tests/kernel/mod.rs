//! A kernel for a QEMU that boots nothing.

/// The least that QEMU would boot: an ELF header, a segment of notes, and Xen's note with the entry
/// point.
pub fn kernel() -> Vec<u8> {
    let mut elf = vec![0; 64 + 56];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 62;
    elf[32] = 64;
    elf[54] = 56;
    elf[56] = 1;
    elf[64] = 4;
    elf[72] = 120;
    elf[96] = 20;
    let note = [4_u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), 0x10_0000];
    elf.extend(note.iter().flat_map(|word| word.to_le_bytes()));
    elf
}
