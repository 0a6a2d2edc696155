//! Management: making, showing, changing and deleting devices, and every rule about it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adding;
mod deleting;
mod moving;
mod showing;
mod simulators;
mod world;
