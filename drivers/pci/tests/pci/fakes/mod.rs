//! A PCI segment and a virtio function that behave as the specifications say, until a test tells
//! them otherwise.

pub mod function;
pub mod machine;
pub mod port;
pub mod registers;
pub mod slot;
pub mod sriov;
pub mod tree;
pub mod virtio;
