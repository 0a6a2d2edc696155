//! See `virtio_iommu_fuzz::viommu`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| virtio_iommu_fuzz::viommu(data));
