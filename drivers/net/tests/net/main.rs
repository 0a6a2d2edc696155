//! The network driver against a device that a test plays by VIRTIO 1.2, 5.1.

#[cfg(test)]
#[path = "../../../../vdpa/virtio/tests/common/mod.rs"]
mod common;

#[cfg(test)]
mod control;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod odd;
#[cfg(test)]
mod offload;
#[cfg(test)]
mod receive;
#[cfg(test)]
mod smoltcp;
#[cfg(test)]
mod transmit;
