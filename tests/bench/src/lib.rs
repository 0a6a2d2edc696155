//! What the bench kernel and the program on the host that boots it agree on: which rows there are,
//! and the lines on the console.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod record;
pub mod row;
