//! See `web_fuzz::http_target`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| web_fuzz::http_target(data));
