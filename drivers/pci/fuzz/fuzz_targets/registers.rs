//! See `pci_fuzz::registers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pci_fuzz::registers(data));
