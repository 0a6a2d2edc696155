//! See `nbd_client_fuzz::hostile_server`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nbd_client_fuzz::hostile_server(data));
