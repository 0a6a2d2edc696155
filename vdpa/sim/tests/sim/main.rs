//! The simulated devices, through the vDPA bus and their queues: what they do, what they refuse,
//! and what is left of them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blk;
mod blk_model;
mod conformance;
mod dirty;
mod disk;
mod faults;
mod hostile;
mod lifetime;
mod motion;
mod net;
mod net_cable;
mod net_control;
mod network;
mod threads;
mod translation;
mod world;
