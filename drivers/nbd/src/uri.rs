//! Where an export is: `nbd://HOST[:PORT]/EXPORT`.
//!
//! Source: `doc/uri.md` of NetworkBlockDevice/nbd; RFC 3986.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

const SCHEME: &str = "nbd://";
/// The port that is reserved for NBD.
const PORT: u16 = 10809;
/// The longest name of an export.
const EXPORT_MAX: usize = 4096;

/// An export of a server whose address is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// The server's address and port.
    pub server: SocketAddr,
    /// The export's name, which may be empty: the server's own choice.
    pub export: String,
}

/// Why a text is no such place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Something else than NBD over TCP.
    #[error("not an NBD address, which is nbd://ADDRESS[:PORT]/EXPORT")]
    Scheme,
    /// NBD over TLS or a local socket.
    #[error("NBD goes over TCP without TLS here: nbd://ADDRESS[:PORT]/EXPORT")]
    Transport,
    /// A name, or nothing, where the address should be.
    #[error(
        "the server's IP address is needed, such as 10.0.2.2 or [fec0::2]: names are not looked up"
    )]
    Address,
    /// Not a port.
    #[error("the port is a number from 1 to 65535")]
    Port,
    /// A user, a query or a fragment.
    #[error("an NBD address has no user, query or fragment here")]
    Extra,
    /// The export's name.
    #[error("the export's name is UTF-8 of at most 4096 bytes, with %XX for special characters")]
    Export,
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let Some((scheme, rest)) = text.split_at_checked(SCHEME.len()) else {
            return Err(UriError::Scheme);
        };
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            let family = text.get(..3).unwrap_or_default();
            let is_nbd = family.eq_ignore_ascii_case("nbd") && text.contains("://");
            return Err(if is_nbd {
                UriError::Transport
            } else {
                UriError::Scheme
            });
        }
        if rest.contains(['?', '#']) {
            return Err(UriError::Extra);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(UriError::Extra);
        }
        Ok(Self {
            server: server(authority)?,
            export: decode(path).ok_or(UriError::Export)?,
        })
    }
}

/// An address, and maybe a port.
fn server(text: &str) -> Result<SocketAddr, UriError> {
    let (address, rest) = match text.strip_prefix('[') {
        Some(text) => {
            let (address, rest) = text.split_once(']').ok_or(UriError::Address)?;
            let address: Ipv6Addr = address.parse().map_err(|_| UriError::Address)?;
            (IpAddr::V6(address), rest)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (address, rest) = text.split_at(end);
            let address: Ipv4Addr = address.parse().map_err(|_| UriError::Address)?;
            (IpAddr::V4(address), rest)
        }
    };
    let port = match rest {
        // RFC 3986, 3.2.3: the port behind the colon may be missing.
        "" | ":" => PORT,
        _ => {
            let digits = rest.strip_prefix(':').ok_or(UriError::Address)?;
            let port = digits.parse().ok().filter(|port| *port != 0);
            let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
            port.filter(|_| plain).ok_or(UriError::Port)?
        }
    };
    Ok(SocketAddr::new(address, port))
}

/// A name without its percent signs.
fn decode(path: &str) -> Option<String> {
    let mut name = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        if *first != b'%' {
            name.push(*first);
            continue;
        }
        let [high, low, others @ ..] = rest else {
            return None;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = digit(*high)? << 4 | digit(*low)?;
        name.push(u8::try_from(byte).ok()?);
        rest = others;
    }
    let name = String::from_utf8(name).ok()?;
    (name.len() <= EXPORT_MAX && !name.contains('\0')).then_some(name)
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/", self.server)?;
        for byte in self.export.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
                f.write_char(byte.into())?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    fn uri(text: &str) -> Result<(String, String), UriError> {
        let uri: Uri = text.parse()?;
        Ok((uri.server.to_string(), uri.export))
    }

    #[test]
    fn addresses_ports_and_exports_are_read() {
        for (text, server, export) in [
            ("nbd://10.0.2.2", "10.0.2.2:10809", ""),
            ("nbd://10.0.2.2/", "10.0.2.2:10809", ""),
            ("nbd://10.0.2.2:/x", "10.0.2.2:10809", "x"),
            ("nbd://10.0.2.2:10809/export", "10.0.2.2:10809", "export"),
            ("NBD://10.0.2.2:1/a/b", "10.0.2.2:1", "a/b"),
            ("nbd://10.0.2.2//a", "10.0.2.2:10809", "/a"),
            ("nbd://[fec0::2]/disk", "[fec0::2]:10809", "disk"),
            ("nbd://[::1]:65535/", "[::1]:65535", ""),
            (
                "nbd://10.0.2.2/my%20disk%C3%BC",
                "10.0.2.2:10809",
                "my diskü",
            ),
        ] {
            assert_eq!(uri(text), Ok((server.into(), export.into())), "{text}");
        }
    }

    #[test]
    fn what_is_read_can_be_written_and_read_again() {
        for text in [
            "nbd://10.0.2.2:10809/my%20disk%C3%BC%25",
            "nbd://[fec0::2]:7//a:b",
        ] {
            assert_eq!(text.parse::<Uri>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        use UriError::{Address, Export, Extra, Port, Scheme, Transport};
        for (text, error) in [
            ("", Scheme),
            ("disk.img", Scheme),
            ("http://10.0.2.2/", Scheme),
            ("nbd:10.0.2.2:10809", Scheme),
            ("nbds://10.0.2.2/", Transport),
            ("nbd+unix:///x?socket=/s", Transport),
            ("nbd://", Address),
            ("nbd:///x", Address),
            ("nbd://localhost/x", Address),
            ("nbd://fec0::2/", Address),
            ("nbd://[fec0::2", Address),
            ("nbd://[10.0.2.2]/", Address),
            ("nbd://[fe80::1%25eth0]/", Address),
            ("nbd://10.0.2/", Address),
            ("nbd://10.0.2.2:0/", Port),
            ("nbd://10.0.2.2:+1/", Port),
            ("nbd://10.0.2.2:65536/", Port),
            ("nbd://10.0.2.2:x/", Port),
            ("nbd://me@10.0.2.2/", Extra),
            ("nbd://10.0.2.2/?tls=on", Extra),
            ("nbd://10.0.2.2/x#y", Extra),
            ("nbd://10.0.2.2/%", Export),
            ("nbd://10.0.2.2/%4", Export),
            ("nbd://10.0.2.2/%zz", Export),
            ("nbd://10.0.2.2/%ff", Export),
            ("nbd://10.0.2.2/%00", Export),
        ] {
            assert_eq!(uri(text), Err(error), "{text}");
        }
        let long = "x".repeat(EXPORT_MAX + 1);
        assert_eq!(uri(&std::format!("nbd://10.0.2.2/{long}")), Err(Export));
    }
}
