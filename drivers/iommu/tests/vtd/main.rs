//! The driver of Intel VT-d, over units made of software.

#![cfg(test)]

mod domains;
mod failures;
mod fake;
mod faults;
mod firmware;
mod interrupts;
mod machine;
mod starting;
