//! See `vdpa_mgmt_fuzz::tool_json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_mgmt_fuzz::tool_json(data));
