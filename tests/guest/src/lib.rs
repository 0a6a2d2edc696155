//! What the guest test kernel and the harness on the host agree on: the lines on the console, and
//! what is where on the disks.

#![no_std]
#![forbid(unsafe_code)]

pub mod disk;
pub mod record;
