//! See `kernel_fuzz::start_info`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kernel_fuzz::start_info(data));
