//! See `kernel_fuzz::frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kernel_fuzz::frames(data));
