//! IOMMUs that fuzzing makes up, before their driver: what they say of themselves and of endpoints,
//! what they answer, and what they tell unasked.
//!
//! An input is a string of bytes without rules, so that every input is an IOMMU and what happens to
//! it. A run panics where the driver breaks a promise. Nothing here depends on a fuzzer: the tests
//! of `virtio-iommu` replay the inputs in `corpus/` with the same code.

mod device;
mod input;
mod viommu;

pub use viommu::viommu;
