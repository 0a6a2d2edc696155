//! The version of the protocol (RFC 9112, 2.3).

use super::refusal::Refusal;

/// The version that a client speaks. What is newer within the major version counts as HTTP/1.1 (RFC
/// 9110, 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

impl Version {
    /// RFC 9112, 2.3.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Refusal> {
        match text {
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                match (major, minor) {
                    (b'1', b'0') => Ok(Self::Http10),
                    (b'1', _) => Ok(Self::Http11),
                    _ => Err(Refusal::Version),
                }
            }
            _ => Err(Refusal::RequestLine),
        }
    }
}
