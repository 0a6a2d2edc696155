//! See `kernel_fuzz::dhcp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kernel_fuzz::dhcp(data));
