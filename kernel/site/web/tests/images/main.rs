//! Disks as people have them, and as nobody should: partitioned, damaged field by field, and made
//! of chance.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose case cannot be set up has failed"
)]

mod damaged;
mod device;
mod gpt;
mod tables;
mod visitor;
mod volumes;
