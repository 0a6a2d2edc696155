//! The name of a management device.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// `BUS/NAME`, or `NAME` for one that is on no bus: `pci/0000:00:04.0`, `vdpasim_net`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    bus: Option<String>,
    name: String,
}

/// The text is no handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a management device is called NAME or BUS/NAME")]
pub struct BadHandle;

impl Handle {
    /// The handle of a management device on no bus.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            bus: None,
            name: name.to_owned(),
        }
    }

    /// The handle of a management device that stands for a device on a bus.
    #[must_use]
    pub fn on_bus(bus: &str, name: &str) -> Self {
        Self {
            bus: Some(bus.to_owned()),
            name: name.to_owned(),
        }
    }
}

impl FromStr for Handle {
    type Err = BadHandle;

    fn from_str(text: &str) -> Result<Self, BadHandle> {
        let (bus, name) = match text.split_once('/') {
            Some((bus, name)) => (Some(bus), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || bus == Some("") {
            return Err(BadHandle);
        }
        Ok(Self {
            bus: bus.map(ToOwned::to_owned),
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(bus) = &self.bus {
            write!(f, "{bus}/")?;
        }
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_handle_is_read_as_it_is_written() {
        for text in ["vdpasim_net", "pci/0000:00:04.0"] {
            assert_eq!(text.parse::<Handle>().unwrap().to_string(), text);
        }
        assert_eq!(
            "pci/0000:00:04.0".parse(),
            Ok(Handle::on_bus("pci", "0000:00:04.0"))
        );
    }

    #[test]
    fn a_bus_belongs_to_the_handle_if_and_only_if_there_is_one() {
        assert_ne!(
            Handle::named("0000:00:04.0"),
            Handle::on_bus("pci", "0000:00:04.0")
        );
        for text in ["", "/", "pci/", "/0000:00:04.0", "a/b/c"] {
            assert_eq!(text.parse::<Handle>(), Err(BadHandle), "{text:?}");
        }
    }
}
