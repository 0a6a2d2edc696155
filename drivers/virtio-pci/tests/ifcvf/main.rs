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
#[path = "../../../pci/tests/pci/fakes/machine.rs"]
mod machine;
mod memory;
mod moves;
mod probe;
mod removal;
mod rig;
mod simulators;
#[path = "../../../pci/tests/pci/fakes/slot.rs"]
mod slot;
mod stopping;
mod strict;
#[path = "../../../../vdpa/virtio/tests/moving/traffic.rs"]
mod traffic;
#[expect(dead_code, reason = "fake functions come and go more than cards do")]
#[path = "../../../pci/tests/pci/fakes/tree.rs"]
mod tree;
#[expect(dead_code, reason = "moves between simulators need more of it")]
#[path = "../../../../vdpa/virtio/tests/moving/world.rs"]
mod world;
#[path = "../../../../vdpa/virtio/tests/moving/writers.rs"]
mod writers;
