//! Where a PCI function sits: domain, bus, device and function, as `lspci -D` and sysfs write it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The address of a PCI function of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not of the form, or a number in it is too large.
    #[error(
        "not the address of a PCI function: write 0000:3b:00.2, or 3b:00.2 in domain 0 (hexadecimal, device up to 1f, function up to 7)"
    )]
    Syntax,
    /// A domain that QEMU's `host=` does not take, such as those of Intel's VMD.
    #[error("QEMU takes no function of a domain above ffff")]
    Domain,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (place, function) = text.rsplit_once('.').ok_or(AddressError::Syntax)?;
        let (place, device) = place.rsplit_once(':').ok_or(AddressError::Syntax)?;
        let (domain, bus) = place.rsplit_once(':').unwrap_or(("0", place));
        let domain = hexadecimal(domain, 8)?;
        Ok(Self {
            domain: u16::try_from(domain).map_err(|_| AddressError::Domain)?,
            bus: byte(bus, 2, u8::MAX)?,
            device: byte(device, 2, 0x1f)?,
            function: byte(function, 1, 7)?,
        })
    }
}

/// A number of one to `digits` digits that is at most `most`.
fn byte(text: &str, digits: usize, most: u8) -> Result<u8, AddressError> {
    u8::try_from(hexadecimal(text, digits)?)
        .ok()
        .filter(|&number| number <= most)
        .ok_or(AddressError::Syntax)
}

fn hexadecimal(text: &str, digits: usize) -> Result<u32, AddressError> {
    let fits = (1..=digits).contains(&text.len());
    if !fits || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(AddressError::Syntax);
    }
    u32::from_str_radix(text, 16).map_err(|_| AddressError::Syntax)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_domain() {
        for (text, written) in [
            ("0000:3b:00.2", "0000:3b:00.2"),
            ("3b:00.2", "0000:3b:00.2"),
            ("3B:1f.7", "0000:3b:1f.7"),
            ("1:2:3.4", "0001:02:03.4"),
            ("ffff:ff:1f.7", "ffff:ff:1f.7"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(address));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "eth0",
            "3b:00",
            "3b.2",
            "00.2",
            ":3b:00.2",
            "0000:3b:00.8",
            "0000:3b:20.0",
            "0000:3b:00.",
            "0000:3b:00.02",
            "0000:13b:00.0",
            "0000:3b:00.2,x",
            "0000:3b:0x1.2",
            "0000:3b:+1.2",
            "1:0000:3b:00.2",
            " 3b:00.2",
            "123456789:3b:00.2",
        ] {
            assert_eq!(
                text.parse::<Address>(),
                Err(AddressError::Syntax),
                "{text:?}"
            );
        }
        assert_eq!(
            "10000:e1:00.0".parse::<Address>(),
            Err(AddressError::Domain)
        );
    }
}
