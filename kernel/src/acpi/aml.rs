//! What can be told from the bytes of a definition block without interpreting them.
//!
//! An interpreter of AML is larger than the rest of this kernel's start. What is looked for here are names, which stand
//! in the tables as they are written (ACPI 6.5, 20.2.2).

/// Whether the block tells the bus number of a host bridge (ACPI 6.5, 6.5.5). One does that whose number is not 0.
pub(super) fn names_base_bus(block: &[u8]) -> bool {
    block.windows(4).any(|name| name == b"_BBN")
}
