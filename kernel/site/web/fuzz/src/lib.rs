//! What the fuzz targets do with their input.
//!
//! An input is a string of bytes without rules, so that every input means something. A run panics
//! where the side under test breaks a promise.

#[path = "../../tests/images/device.rs"]
mod device;
mod fat_volume;
mod http_framing;
mod http_target;
mod input;
mod partition_table;
#[path = "../../tests/images/visitor.rs"]
mod visitor;
#[path = "../../tests/images/volumes.rs"]
mod volumes;

pub use fat_volume::fat_volume;
pub use http_framing::http_framing;
pub use http_target::http_target;
pub use partition_table::partition_table;
