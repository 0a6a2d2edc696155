//! The block driver against a disk that a test plays by VIRTIO 1.2, 5.2.

#[cfg(test)]
#[path = "../../../../vdpa/virtio/tests/common/mod.rs"]
mod common;

#[cfg(test)]
mod copies;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod odd;
#[cfg(test)]
mod polled;
#[cfg(test)]
mod requests;
