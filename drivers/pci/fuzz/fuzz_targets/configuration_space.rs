//! See `pci_fuzz::configuration_space`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pci_fuzz::configuration_space(data));
