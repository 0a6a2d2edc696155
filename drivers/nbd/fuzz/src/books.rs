//! The bytes of requests, and what has become of each: it ends once, and nobody touches it then.

use nbd_client::{Command, RequestError, Store, TakenBack};

/// What a request is for.
#[derive(Clone, Copy, PartialEq)]
enum Bytes {
    /// Reads so many, of which so many have come from the first one on.
    Read {
        len: u64,
        filled: u64,
    },
    /// Writes so many to this place.
    Write {
        len: u64,
        offset: u64,
    },
    None,
}

struct Request {
    bytes: Bytes,
    /// Whether its bytes can be had.
    readable: bool,
    is_open: bool,
}

/// All requests that there ever were, by their numbers.
#[derive(Default)]
pub struct Books(Vec<Request>);

/// What is written to a place of the export, by anybody at any time.
pub fn pattern(place: u64) -> u8 {
    (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

impl Books {
    pub fn add(&mut self, command: Command, readable: bool) -> usize {
        let bytes = match command {
            Command::Read { len, .. } => Bytes::Read { len, filled: 0 },
            Command::Write { offset, len, .. } => Bytes::Write { len, offset },
            _ => Bytes::None,
        };
        self.0.push(Request {
            bytes,
            readable,
            is_open: true,
        });
        self.0.len() - 1
    }

    /// The user has taken all requests back.
    pub fn taken_back(&mut self) {
        for request in &mut self.0 {
            request.is_open = false;
        }
    }

    pub fn all_have_ended(&self) -> bool {
        !self.0.iter().any(|request| request.is_open)
    }

    fn open(&mut self, number: usize) -> &mut Request {
        let request = &mut self.0[number];
        assert!(request.is_open, "request {number} has ended");
        request
    }
}

impl Store<usize> for Books {
    fn fetch(&mut self, number: usize, from: u64, bytes: &mut [u8]) -> Result<(), TakenBack> {
        let request = self.open(number);
        let Bytes::Write { len, offset } = request.bytes else {
            panic!("request {number} has no data");
        };
        assert!(from + bytes.len() as u64 <= len, "so many it does not have");
        if !request.readable {
            return Err(TakenBack);
        }
        for (byte, place) in bytes.iter_mut().zip(offset + from..) {
            *byte = pattern(place);
        }
        Ok(())
    }

    fn put(&mut self, number: usize, at: u64, bytes: &[u8]) -> Result<(), TakenBack> {
        let request = self.open(number);
        let Bytes::Read { len, filled } = &mut request.bytes else {
            panic!("request {number} reads nothing");
        };
        let end = at + bytes.len() as u64;
        assert!(at <= *filled, "a gap is left");
        assert!(end <= *len, "so many were not asked for");
        *filled = end.max(*filled);
        request.readable.then_some(()).ok_or(TakenBack)
    }

    fn finish(&mut self, number: usize, outcome: Result<(), RequestError>) {
        let request = self.open(number);
        request.is_open = false;
        if outcome.is_err() {
            return;
        }
        match request.bytes {
            Bytes::Read { len, filled } => {
                assert_eq!(len, filled, "some have not come");
                assert!(request.readable || len == 0, "there was no place for them");
            }
            Bytes::Write { len, .. } => {
                assert!(request.readable || len == 0, "the server has not got them");
            }
            Bytes::None => {}
        }
    }
}
