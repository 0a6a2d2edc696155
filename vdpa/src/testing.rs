//! For tests on a host: a kernel and a device that a test holds in its hand.
//!
//! [`FakePlatform`] offers memory, interrupt vectors, tasks and a clock that only moves when nothing
//! else can. [`FakeParent`] is a vDPA device that does what the specification says until the test
//! tells it otherwise.

mod mmio;
mod parent;
mod platform;

pub use parent::{FakeParent, Resets};
pub use platform::FakePlatform;
pub use virtq::testing::{DeviceRing, HeapDma, Request};
