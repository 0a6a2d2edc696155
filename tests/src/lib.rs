//! What the test programs of this package share: which machines are booted, what a guest's report
//! is worth, the disks it gets, a way to tell QEMU what to do, and a web client.

#![deny(unsafe_code)]

pub mod disks;
pub mod kernels;
pub mod linux_guest;
pub mod matrix;
pub mod noise;
pub mod qmp;
pub mod run;
pub mod transcript;
pub mod vhost_user;
pub mod web;
