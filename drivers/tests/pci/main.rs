//! PCI and its parent driver against a fake segment and a fake virtio function.

#![cfg(test)]

mod access;
mod assignment;
mod bars;
mod bench;
mod buses;
mod capabilities;
mod fakes;
mod hotplug;
mod ids;
mod ifcvf;
mod large_bars;
mod layout;
mod msix;
mod reference_defects;
mod roots;
mod spine;
mod sriov;
mod vp_vdpa;
