//! See `virtq_fuzz::hostile_driver`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| virtq_fuzz::hostile_driver(data));
