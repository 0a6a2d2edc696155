//! Requests of a virtio disk (VIRTIO 1.2, 5.2.6) as requests to an NBD server.

use nbd_client::{Command, Durability, Holes, RequestError};
use vdpa::blk::{Header, Range, SECTOR_LEN, UNMAP};
use virtio::blk::T;

/// The most sectors of a range to discard or to write zeroes to: its bytes fit in 32 bits.
pub(crate) const RANGE_SECTORS: u32 = u32::MAX / 512;

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Something of the server.
    Command(Command),
    /// The disk's id.
    Id,
}

/// A request whose bytes are elsewhere.
pub(crate) trait Source {
    /// How many bytes can be read from it.
    fn readable(&self) -> u64;

    /// How many bytes can be written to it. The last one is the status.
    fn writable(&self) -> u64;

    /// Reads so many bytes from `offset` on; `None`, if they are not there.
    fn read<const N: usize>(&self, offset: u64) -> Option<[u8; N]>;
}

/// What a request asks for. A change is as durable as `durability` says.
pub(crate) fn understand(
    request: &impl Source,
    durability: Durability,
) -> Result<Wish, RequestError> {
    let header = Header::decode(&request.read(0).ok_or(RequestError::Io)?);
    let offset = header
        .sector
        .checked_mul(SECTOR_LEN)
        .ok_or(RequestError::Io)?;
    let command = match header.request_type() {
        // VIRTIO 1.2, 5.2.6.1: these name no sector.
        Some(T::Flush | T::GetId) if header.sector != 0 => return Err(RequestError::Io),
        Some(T::GetId) => return Ok(Wish::Id),
        Some(T::Flush) => Command::Flush,
        Some(T::In) => Command::Read {
            offset,
            len: whole(request.writable().saturating_sub(1))?,
        },
        Some(T::Out) => Command::Write {
            offset,
            len: whole(request.readable() - Header::LEN as u64)?,
            durability,
        },
        Some(T::Discard) => {
            let (offset, len, flags) = range(request)?;
            // VIRTIO 1.2, 5.2.6.2: unmapping is what it does anyway.
            if flags != 0 {
                return Err(RequestError::Unsupported);
            }
            Command::Trim {
                offset,
                len,
                durability,
            }
        }
        Some(T::WriteZeroes) => {
            let (offset, len, flags) = range(request)?;
            let holes = match flags {
                0 => Holes::Forbidden,
                UNMAP => Holes::Allowed,
                _ => return Err(RequestError::Unsupported),
            };
            Command::WriteZeroes {
                offset,
                len,
                durability,
                holes,
            }
        }
        _ => return Err(RequestError::Unsupported),
    };
    Ok(Wish::Command(command))
}

/// A length of data, which is that of whole sectors.
fn whole(len: u64) -> Result<u64, RequestError> {
    let is_whole = len.is_multiple_of(SECTOR_LEN);
    is_whole.then_some(len).ok_or(RequestError::Io)
}

/// The one range of a request: position and length in bytes, and flags.
fn range(request: &impl Source) -> Result<(u64, u64, u32), RequestError> {
    if request.readable() != (Header::LEN + Range::LEN) as u64 {
        return Err(RequestError::Io);
    }
    let bytes = request.read(Header::LEN as u64).ok_or(RequestError::Io)?;
    let Range {
        sector,
        sectors,
        flags,
    } = Range::decode(&bytes);
    let offset = sector.checked_mul(SECTOR_LEN).ok_or(RequestError::Io)?;
    if sectors > RANGE_SECTORS {
        return Err(RequestError::Io);
    }
    Ok((offset, u64::from(sectors) * SECTOR_LEN, flags))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    struct Request {
        readable: Vec<u8>,
        writable: u64,
    }

    impl Source for Request {
        fn readable(&self) -> u64 {
            self.readable.len() as u64
        }

        fn writable(&self) -> u64 {
            self.writable
        }

        fn read<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
            let rest = self.readable.get(usize::try_from(offset).ok()?..)?;
            rest.first_chunk().copied()
        }
    }

    fn ask(kind: u32, sector: u64, data: &[u8], writable: u64) -> Result<Wish, RequestError> {
        let mut readable = Vec::new();
        readable.extend(kind.to_le_bytes());
        readable.extend([0xff; 4]);
        readable.extend(sector.to_le_bytes());
        readable.extend(data);
        understand(&Request { readable, writable }, Durability::Cached)
    }

    fn range_of(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
        let mut bytes = sector.to_le_bytes().to_vec();
        bytes.extend(sectors.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes
    }

    const IN: u32 = 0;
    const OUT: u32 = 1;
    const FLUSH: u32 = 4;
    const GET_ID: u32 = 8;
    const DISCARD: u32 = 11;
    const WRITE_ZEROES: u32 = 13;

    #[test]
    fn requests_are_understood() {
        let durability = Durability::Cached;
        let read = |offset, len| Command::Read { offset, len };
        let write = |offset, len| Command::Write {
            offset,
            len,
            durability,
        };
        let zeroes = |holes| Command::WriteZeroes {
            offset: 3 << 41,
            len: 4096,
            durability,
            holes,
        };
        let place = |flags| range_of(3 << 32, 8, flags);
        for (found, command) in [
            (ask(IN, 3, &[], 1025), read(1536, 1024)),
            (ask(IN, 3, &[7; 9], 513), read(1536, 512)),
            (ask(IN, 0, &[], 1), read(0, 0)),
            (ask(IN, 0, &[], 0), read(0, 0)),
            (ask(OUT, u64::MAX >> 9, &[1; 512], 1), write(!511, 512)),
            (ask(OUT, 0, &[], 1), write(0, 0)),
            (ask(FLUSH, 0, &[], 1), Command::Flush),
            (ask(WRITE_ZEROES, 9, &place(0), 1), zeroes(Holes::Forbidden)),
            (ask(WRITE_ZEROES, 0, &place(1), 1), zeroes(Holes::Allowed)),
            (
                ask(DISCARD, 0, &range_of(1, RANGE_SECTORS, 0), 1),
                Command::Trim {
                    offset: 512,
                    len: u64::from(RANGE_SECTORS) * 512,
                    durability,
                },
            ),
        ] {
            assert_eq!(found, Ok(Wish::Command(command)));
        }
        assert_eq!(ask(GET_ID, 0, &[], 21), Ok(Wish::Id));
    }

    #[test]
    fn others_are_refused() {
        let two = [range_of(0, 1, 0), range_of(1, 1, 0)].concat();
        for (found, error) in [
            (ask(IN, 0, &[], 512), RequestError::Io),
            (ask(IN, 1 << 55, &[], 513), RequestError::Io),
            (ask(OUT, 0, &[0; 511], 1), RequestError::Io),
            (ask(OUT, u64::MAX, &[0; 512], 1), RequestError::Io),
            (ask(FLUSH, 1, &[], 1), RequestError::Io),
            (ask(GET_ID, 1, &[], 21), RequestError::Io),
            (ask(DISCARD, 0, &[], 1), RequestError::Io),
            (ask(DISCARD, 0, &[0; 15], 1), RequestError::Io),
            (ask(DISCARD, 0, &two, 1), RequestError::Io),
            (
                ask(DISCARD, 0, &range_of(1 << 55, 1, 0), 1),
                RequestError::Io,
            ),
            (
                ask(WRITE_ZEROES, 0, &range_of(0, RANGE_SECTORS + 1, 0), 1),
                RequestError::Io,
            ),
            (
                ask(DISCARD, 0, &range_of(0, 1, 1), 1),
                RequestError::Unsupported,
            ),
            (
                ask(WRITE_ZEROES, 0, &range_of(0, 1, 3), 1),
                RequestError::Unsupported,
            ),
            (ask(2, 0, &[], 1), RequestError::Unsupported),
            (ask(u32::MAX, 0, &[], 1), RequestError::Unsupported),
        ] {
            assert_eq!(found, Err(error));
        }
        let short = Request {
            readable: [0; 15].into(),
            writable: 513,
        };
        let found = understand(&short, Durability::Cached);
        assert_eq!(found, Err(RequestError::Io));
    }

    #[test]
    fn who_cannot_flush_has_every_change_made_durable() {
        let durable = |kind: u32, data: &[u8]| {
            let readable = [&kind.to_le_bytes()[..], &[0; 12], data].concat();
            let request = Request {
                readable,
                writable: 1,
            };
            match understand(&request, Durability::Durable) {
                Ok(Wish::Command(
                    Command::Write { durability, .. }
                    | Command::Trim { durability, .. }
                    | Command::WriteZeroes { durability, .. },
                )) => durability == Durability::Durable,
                _ => false,
            }
        };
        assert!(durable(OUT, &[0; 512]));
        assert!(durable(DISCARD, &range_of(0, 1, 0)));
        assert!(durable(WRITE_ZEROES, &range_of(0, 1, 0)));
    }
}
