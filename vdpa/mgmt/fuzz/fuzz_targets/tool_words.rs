//! See `vdpa_mgmt_fuzz::tool_words`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_mgmt_fuzz::tool_words(data));
