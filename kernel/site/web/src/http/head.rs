//! The head of a request: its line and its fields (RFC 9112, 3 and 5).

use httparse::{EMPTY_HEADER, Status};

use super::framing::{self, Framing};
use super::refusal::Refusal;
use super::target::{self, Target};

/// More fields than this are refused.
pub(super) const FIELDS_MAX: usize = 64;

/// The methods that RFC 9110 and RFC 5789 define. Others are unknown here.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// The version that a client speaks. What is newer within the major version counts as HTTP/1.1 (RFC 9110, 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// What becomes of the connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It is kept for the next request.
    Keep,
    /// It is closed.
    Close,
}

/// The head of a request, all of it found valid.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// One of the known methods.
    pub method: &'a str,
    /// What it is for.
    pub target: Target<'a>,
    /// The client's version.
    pub version: Version,
    /// How long the body is.
    pub framing: Framing,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    fields: &'a [u8],
}

/// The three parts of a request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'a> {
    method: &'a str,
    target: Target<'a>,
    version: Version,
}

impl<'a> RequestLine<'a> {
    /// Reads the line without its end.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, Refusal> {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let mut part = || parts.next().ok_or(Refusal::RequestLine);
        let (method, target, version) = (part()?, part()?, part()?);
        if method.is_empty() || !method.iter().copied().all(is_token) {
            return Err(Refusal::RequestLine);
        }
        let version = parse_version(version)?;
        let target = str::from_utf8(target).map_err(|_| Refusal::Target)?;
        let method = METHODS
            .into_iter()
            .find(|known| known.as_bytes() == method)
            .ok_or(Refusal::Method)?;
        Ok(Self {
            method,
            target: Target::parse(method, target)?,
            version,
        })
    }
}

impl<'a> Head<'a> {
    /// Reads a head with the empty line at its end.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn parse(head: &'a [u8]) -> Result<Self, Refusal> {
        let end = head
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .ok_or(Refusal::RequestLine)?;
        let (line, fields) = (&head[..end], &head[end + 2..]);
        let RequestLine {
            method,
            target,
            version,
        } = RequestLine::parse(line)?;
        check_fields(fields)?;
        let mut head = Self {
            method,
            target,
            version,
            framing: Framing::None,
            expects_continue: false,
            fields,
        };
        head.check_host()?;
        head.framing = framing::of(&head)?;
        head.expects_continue = head.expectation()?;
        Ok(head)
    }

    /// The values of all fields with this name, in their order.
    pub fn values(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.fields;
        lines(fields).filter_map(move |line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            line[..colon]
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| line[colon + 1..].trim_ascii())
        })
    }

    /// The value of the first field with this name, if it is there and text.
    #[must_use]
    pub fn value(&self, name: &'a str) -> Option<&'a str> {
        str::from_utf8(self.values(name).next()?).ok()
    }

    /// The elements of the lists in all fields with this name, without empty ones (RFC 9110, 5.6.1).
    pub(super) fn elements(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// The host and port that the request is meant for (RFC 9112, 3.3).
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        self.target.authority().or_else(|| self.value("Host"))
    }

    /// What the client wants to become of the connection (RFC 9112, 9.3). An older client says itself when it
    /// is to be kept, which is more than this server gives it.
    #[must_use]
    pub fn persistence(&self) -> Persistence {
        let mut options = self.elements("Connection");
        if self.version == Version::Http10
            || options.any(|option| option.eq_ignore_ascii_case(b"close"))
        {
            Persistence::Close
        } else {
            Persistence::Keep
        }
    }

    /// RFC 9112, 3.2.
    fn check_host(&self) -> Result<(), Refusal> {
        let mut hosts = self.values("Host");
        let good = match (hosts.next(), hosts.next()) {
            (None, _) => self.version == Version::Http10,
            (Some(host), None) => str::from_utf8(host).is_ok_and(target::is_authority),
            (Some(_), Some(_)) => false,
        };
        if good { Ok(()) } else { Err(Refusal::Host) }
    }

    /// RFC 9110, 10.1.1.
    fn expectation(&self) -> Result<bool, Refusal> {
        let mut expects = false;
        for expectation in self.elements("Expect") {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::Expectation);
            }
            expects = true;
        }
        Ok(expects && self.version >= Version::Http11)
    }
}

/// Whether the fields, with the empty line behind them, are well-formed.
fn check_fields(fields: &[u8]) -> Result<(), Refusal> {
    let mut headers = [EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(fields, &mut headers) {
        Ok(Status::Complete((length, _))) if length == fields.len() => Ok(()),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::FieldsTooLong),
        Ok(_) | Err(_) => Err(Refusal::Field),
    }
}

/// The lines of a block that ends with an empty one.
fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    block
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// RFC 9112, 2.3.
fn parse_version(text: &[u8]) -> Result<Version, Refusal> {
    match text {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            match (major, minor) {
                (b'1', b'0') => Ok(Version::Http10),
                (b'1', _) => Ok(Version::Http11),
                _ => Err(Refusal::Version),
            }
        }
        _ => Err(Refusal::RequestLine),
    }
}

/// RFC 9110, 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
