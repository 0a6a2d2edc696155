//! See `vdpa_vduse_fuzz::hostile_task`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_vduse_fuzz::hostile_task(data));
