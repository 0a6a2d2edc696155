//! Why a request is not read any further.

/// Why a request is refused. The connection is closed after each of them, because nobody knows for
/// sure where the next request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// RFC 9112, 3.
    #[error("the request line is not METHOD TARGET HTTP/1.1")]
    RequestLine,
    /// RFC 9112, 3.2.
    #[error("the request target is none that fits the method")]
    Target,
    /// RFC 9112, 2.2: a carriage return or a line feed without the other, or NUL.
    #[error("a line ends with CR LF, and neither stands anywhere else")]
    LineEnd,
    /// RFC 9112, 5.
    #[error("a field is not NAME: VALUE on one line")]
    Field,
    /// RFC 9112, 3.2.
    #[error("a request has one field Host with a host in it")]
    Host,
    /// RFC 9112, 6.3.
    #[error("Content-Length is one number, and not together with Transfer-Encoding")]
    ContentLength,
    /// RFC 9112, 6.1.
    #[error("the last transfer coding of a request is chunked, once")]
    TransferEncoding,
    /// RFC 9112, 7.1.
    #[error("the chunked body is malformed")]
    Chunk,
    /// RFC 9110, 15.5.9.
    #[error("the request did not arrive in time")]
    Timeout,
    /// RFC 9110, 15.5.14.
    #[error("the body is too long")]
    BodyTooLong,
    /// RFC 9110, 15.5.15.
    #[error("the request target is too long")]
    TargetTooLong,
    /// RFC 9110, 15.5.18.
    #[error("nothing but 100-continue can be expected here")]
    Expectation,
    /// RFC 6585, 5.
    #[error("the fields of the request are too many or too long")]
    FieldsTooLong,
    /// RFC 9110, 15.6.2.
    #[error("the method is not known here")]
    Method,
    /// RFC 9112, 6.1.
    #[error("the only transfer coding that is known here is chunked")]
    UnknownCoding,
    /// RFC 9110, 15.6.6.
    #[error("the version is not HTTP/1.1 or HTTP/1.0")]
    Version,
}

impl Refusal {
    /// The status code of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::RequestLine
            | Self::Target
            | Self::LineEnd
            | Self::Field
            | Self::Host
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::Chunk => 400,
            Self::Timeout => 408,
            Self::BodyTooLong => 413,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::FieldsTooLong => 431,
            Self::Method | Self::UnknownCoding => 501,
            Self::Version => 505,
        }
    }
}
