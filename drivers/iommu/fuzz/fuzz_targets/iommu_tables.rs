//! See `iommu_fuzz::iommu_tables`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iommu_fuzz::iommu_tables(data));
