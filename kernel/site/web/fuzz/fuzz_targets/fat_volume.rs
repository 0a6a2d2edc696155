//! See `web_fuzz::fat_volume`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| web_fuzz::fat_volume(data));
