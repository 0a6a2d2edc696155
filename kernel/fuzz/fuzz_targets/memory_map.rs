//! See `kernel_fuzz::memory_map`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kernel_fuzz::memory_map(data));
