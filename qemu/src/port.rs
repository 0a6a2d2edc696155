//! Which TCP port of this host the guest's web server gets.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use thiserror::Error;

/// The port taken when the user names none.
pub const DEFAULT_PORT: u16 = 8080;

/// How many ports above the default are tried.
const TRIES: u16 = 100;

/// Why there is no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PortError {
    /// The port the user named is in use.
    #[error("port {0} is in use; stop its user or choose another with --port")]
    Taken(u16),
    /// The port the user named needs privileges.
    #[error("port {0} is not yours to open; ports from 1024 on need no privileges")]
    Denied(u16),
    /// The port the user named cannot be opened for another reason.
    #[error("port {0} cannot be opened ({1})")]
    Unusable(u16, io::ErrorKind),
    /// The default and all its neighbours are in use.
    #[error("ports {first} to {last} are all in use; choose one with --port")]
    AllTaken {
        /// The first one tried.
        first: u16,
        /// The last one tried.
        last: u16,
    },
}

/// A free port of the loopback address: `asked` if it is given and free, else the first free one
/// from [`DEFAULT_PORT`] on.
///
/// # Errors
///
/// A [`PortError`] when there is none.
pub fn choose(asked: Option<u16>) -> Result<u16, PortError> {
    match asked {
        Some(port) => usable(port).map(|()| port),
        None => first_free(DEFAULT_PORT..=DEFAULT_PORT + TRIES, usable),
    }
}

/// The first of `ports` that `usable` accepts.
fn first_free(
    mut ports: std::ops::RangeInclusive<u16>,
    usable: impl Fn(u16) -> Result<(), PortError>,
) -> Result<u16, PortError> {
    let (first, last) = (*ports.start(), *ports.end());
    ports
        .find(|&port| usable(port).is_ok())
        .ok_or(PortError::AllTaken { first, last })
}

/// Whether QEMU could listen on `port` of the loopback address now.
pub(crate) fn usable(port: u16) -> Result<(), PortError> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::AddrInUse => PortError::Taken(port),
            io::ErrorKind::PermissionDenied => PortError::Denied(port),
            kind => PortError::Unusable(port, kind),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_port_that_is_taken_is_an_error() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        assert_eq!(choose(Some(port)), Err(PortError::Taken(port)));
        drop(holder);
        assert_eq!(choose(Some(port)), Ok(port));
    }

    #[test]
    fn taken_default_gives_way_to_the_next_free_port() {
        let taken_below = |free: u16| {
            move |port| {
                if port < free {
                    Err(PortError::Taken(port))
                } else {
                    Ok(())
                }
            }
        };
        assert_eq!(first_free(8080..=8083, taken_below(8080)), Ok(8080));
        assert_eq!(first_free(8080..=8083, taken_below(8082)), Ok(8082));
        assert_eq!(
            first_free(8080..=8083, taken_below(9000)),
            Err(PortError::AllTaken {
                first: 8080,
                last: 8083
            })
        );
    }
}
