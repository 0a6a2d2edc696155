//! PCI and its parent driver against a fake segment and a fake virtio function.

#![cfg(test)]

mod access;
mod assignment;
mod bars;
mod buses;
mod capabilities;
#[expect(dead_code, reason = "the tests of the parent drivers need more of it")]
mod fakes;
mod first;
mod hotplug;
mod ids;
mod isolation;
mod large_bars;
mod msix;
mod roots;
mod sriov;
