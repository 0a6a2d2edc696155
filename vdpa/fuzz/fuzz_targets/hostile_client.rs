//! See `vdpa_fuzz::hostile_client`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_fuzz::hostile_client(data));
