//! Gives PCI functions of this host to the guest: looks at what that takes, says what is missing,
//! and binds them for the time of a run if it is asked to.
//!
//! A [`Survey`](survey::Survey) reads a [`Host`](host::Host) and changes nothing; a
//! [`Binding`](binding::Binding) changes which driver has a function, and undoes that. QEMU's part
//! is one `-device vfio-pci` per function, which [`Guest`](crate::guest::Guest) adds. Source: the
//! kernel's `Documentation/driver-api/vfio.rst`.

pub mod address;
pub mod binding;
pub mod finding;
pub mod function;
pub mod host;
pub mod ids;
pub mod survey;
pub mod usage;

use crate::machine::Memory;
use address::Address;

/// Who binds functions to `vfio-pci`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binder {
    /// The administrator of the host, before this program runs.
    Somebody,
    /// This program, for the time of the run.
    Program,
}

/// What is done with functions that the host seems to need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caution {
    /// They are not given away.
    Heeded,
    /// They are, because somebody says so.
    Overruled,
}

/// What somebody wants to be passed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The functions.
    pub functions: Vec<Address>,
    /// Who binds them.
    pub binder: Binder,
    /// Whether what speaks against it counts.
    pub caution: Caution,
    /// The guest's memory, all of which the functions can reach.
    pub memory: Memory,
}
