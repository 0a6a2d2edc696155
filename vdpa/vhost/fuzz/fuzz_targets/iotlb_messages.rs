//! See `vhost_vdpa_fuzz::iotlb_messages`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vhost_vdpa_fuzz::iotlb_messages(data));
