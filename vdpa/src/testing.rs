//! For tests on a host: a kernel and a device that a test holds in its hand.
//!
//! [`FakePlatform`] offers memory, interrupt vectors, tasks and a clock that only moves when
//! nothing else can. [`FakeParent`] is a vDPA device that does what the specification says until
//! the test tells it otherwise. [`FakeIommu`] keeps devices away from memory.

mod iommu;
mod mmio;
mod parent;
mod platform;

pub use iommu::FakeIommu;
pub use parent::{FakeParent, Resets, Traits, Translation};
pub use platform::FakePlatform;
pub use virtq::testing::{DeviceRing, HeapDma, Request};
