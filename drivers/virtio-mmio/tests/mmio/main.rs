//! The parent driver on a device that plays VIRTIO 1.2, 4.2 and notes what a driver must not do.

#![cfg(test)]

mod conformance;
mod device;
mod loopback;
mod operations;
mod probe;
