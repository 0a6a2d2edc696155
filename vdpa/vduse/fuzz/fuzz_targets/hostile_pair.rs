//! See `vdpa_vduse_fuzz::hostile_pair`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_vduse_fuzz::hostile_pair(data));
