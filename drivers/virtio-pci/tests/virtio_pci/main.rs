//! The parent drivers of virtio functions against a fake segment and a fake function.

#![cfg(test)]

mod bench;
#[expect(dead_code, reason = "the tests of the segment itself need more of it")]
#[path = "../../../pci/tests/pci/fakes/mod.rs"]
mod fakes;
mod ifcvf;
mod layout;
mod loopback;
mod reference_defects;
mod spine;
mod vp_vdpa;
