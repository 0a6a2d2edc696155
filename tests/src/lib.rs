//! What the test programs of this package share: which machines are booted, what a guest's report
//! is worth, the disks it gets, a way to tell QEMU what to do, a machine in a machine, and a web
//! client.

#![deny(unsafe_code)]

pub mod card;
pub mod disks;
pub mod kernels;
pub mod linux_guest;
pub mod matrix;
pub mod nested;
pub mod new_qemu;
pub mod noise;
pub mod programs;
pub mod qmp;
pub mod requirement;
pub mod run;
pub mod transcript;
pub mod vhost_user;
pub mod web;
