//! Which way a device goes inside the guest, from the vDPA bus to its driver.

use std::fmt;

use clap::ValueEnum;

/// Who consumes a vDPA device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub enum DataPath {
    /// The kernel's own virtio drivers.
    #[default]
    Virtio,
    /// A client task with its own memory, over vhost, with the same drivers.
    Vhost,
}

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Virtio => "virtio",
            Self::Vhost => "vhost",
        })
    }
}
