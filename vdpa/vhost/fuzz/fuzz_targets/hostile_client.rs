//! See `vhost_vdpa_fuzz::hostile_client`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vhost_vdpa_fuzz::hostile_client(data));
