//! The vDPA device and its bus: registration, checks, status machine, binding, removal.

mod binding;
mod groups;
mod in_between;
mod model;
mod operations;
mod registration;
mod removal;
mod status_machine;
mod world;
