//! The bytes of a body: as many as were announced, or in chunks (RFC 9112, 6 and 7.1).

use super::fields::is_token;
use super::framing::Framing;
use super::refusal::Refusal;

/// The longest body of a request, in bytes.
pub const BODY_MAX: usize = 1024;

/// The most bytes that a chunked body has besides its data: sizes, extensions, line ends and
/// trailer fields. Each chunk may be of one byte, so this is several times the longest body.
const OVERHEAD_MAX: usize = 16 * BODY_MAX;

/// What a byte of the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Byte {
    /// A byte of the body.
    Data(u8),
    /// A byte around the body.
    Frame,
}

/// Takes a body off the connection, byte by byte.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of data so far.
    data: usize,
    /// Other bytes so far.
    overhead: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length { left: u64 },
    SizeStart,
    Size { size: u64 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Complete,
}

impl Decoder {
    /// A body with this framing.
    ///
    /// # Errors
    /// [`Refusal::BodyTooLong`], if it says itself that it is longer than [`BODY_MAX`].
    pub fn new(framing: Framing) -> Result<Self, Refusal> {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Complete,
            Framing::Length(left) if left > BODY_MAX as u64 => return Err(Refusal::BodyTooLong),
            Framing::Length(left) => State::Length { left },
            Framing::Chunked => State::SizeStart,
        };
        Ok(Self {
            state,
            data: 0,
            overhead: 0,
        })
    }

    /// Whether the last byte of the body was taken. The next one belongs to the next request.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Takes the next byte of the connection. A complete body takes none.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn take(&mut self, byte: u8) -> Result<Byte, Refusal> {
        let kind = match self.state {
            State::Length { left } | State::Data { left } => {
                self.data += 1;
                self.state = match (self.state, left) {
                    (State::Length { .. }, ..=1) => State::Complete,
                    (State::Length { .. }, left) => State::Length { left: left - 1 },
                    (_, ..=1) => State::DataCr,
                    (_, left) => State::Data { left: left - 1 },
                };
                Byte::Data(byte)
            }
            _ => {
                self.state = self.next(byte)?;
                self.overhead += 1;
                Byte::Frame
            }
        };
        if self.overhead > OVERHEAD_MAX {
            return Err(Refusal::FieldsTooLong);
        }
        Ok(kind)
    }

    fn next(&self, byte: u8) -> Result<State, Refusal> {
        Ok(match (self.state, byte) {
            (State::SizeStart, _) => State::Size {
                size: digit(0, byte)?,
            },
            (State::Size { size } | State::Extension { size }, b'\r') => State::SizeEnd { size },
            (State::Size { size }, b';') => State::Extension { size },
            (State::Size { size }, _) => State::Size {
                size: digit(size, byte)?,
            },
            (State::Extension { size }, byte) if is_field_content(byte) => {
                State::Extension { size }
            }
            (State::SizeEnd { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeEnd { size }, b'\n') => self.data(size)?,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::TrailerStart | State::TrailerName, byte) if is_token(byte) => {
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, byte) if is_field_content(byte) => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') | (State::Complete, _) => State::Complete,
            _ => return Err(Refusal::Chunk),
        })
    }

    /// A chunk of `size` bytes begins.
    fn data(&self, size: u64) -> Result<State, Refusal> {
        if size > (BODY_MAX - self.data) as u64 {
            return Err(Refusal::BodyTooLong);
        }
        Ok(State::Data { left: size })
    }
}

/// The number with another hexadecimal digit. Leading zeros count as overhead.
fn digit(size: u64, byte: u8) -> Result<u64, Refusal> {
    let digit = char::from(byte).to_digit(16).ok_or(Refusal::Chunk)?;
    let size = size.checked_mul(16).ok_or(Refusal::Chunk)?;
    Ok(size | u64::from(digit))
}

/// RFC 9110, 5.5.
fn is_field_content(byte: u8) -> bool {
    !byte.is_ascii_control() || byte == b'\t'
}
