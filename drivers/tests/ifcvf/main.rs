//! The driver of IFC VFs against a model of the card.

#![cfg(test)]

mod bench;
mod block;
mod conformance;
mod doorbells;
mod interrupts;
mod late;
mod log;
#[expect(dead_code, reason = "fake functions need more of it than cards do")]
#[path = "../pci/fakes/machine.rs"]
mod machine;
mod memory;
mod moves;
mod probe;
mod removal;
mod rig;
mod simulators;
#[path = "../pci/fakes/slot.rs"]
mod slot;
mod stopping;
#[path = "../moving/traffic.rs"]
mod traffic;
#[expect(dead_code, reason = "fake functions come and go more than cards do")]
#[path = "../pci/fakes/tree.rs"]
mod tree;
#[expect(dead_code, reason = "moves between simulators need more of it")]
#[path = "../moving/world.rs"]
mod world;
#[path = "../moving/writers.rs"]
mod writers;
