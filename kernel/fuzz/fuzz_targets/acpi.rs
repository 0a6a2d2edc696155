//! See `kernel_fuzz::acpi`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kernel_fuzz::acpi(data));
