//! AMD-Vi against a fake of the hardware that forgets nothing by itself.

#![cfg(test)]

mod bench;
mod domains;
mod events;
mod fake;
mod firmware;
mod interrupts;
mod start;
mod timeouts;
