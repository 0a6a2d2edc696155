//! PCI and its parent driver against a fake segment and a fake virtio function.

#![cfg(test)]

mod access;
mod assignment;
mod bars;
mod buses;
mod capabilities;
mod fakes;
mod ids;
mod layout;
mod msix;
mod spine;
mod vp_vdpa;
