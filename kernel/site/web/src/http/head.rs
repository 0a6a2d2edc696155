//! The head of a request: its line and its fields (RFC 9112, 3 and 5).

use alloc::borrow::Cow;

use super::fields::{Fields, is_token};
use super::framing::{self, Framing};
use super::refusal::Refusal;
use super::target::{self, Target};
use super::version::Version;

/// The methods that RFC 9110 and RFC 5789 define. Others are unknown here.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

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
    fields: Fields<'a>,
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
        let version = Version::parse(version)?;
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
        let fields = Fields::parse(fields)?;
        let mut head = Self {
            method,
            target,
            version,
            framing: Framing::None,
            expects_continue: false,
            fields,
        };
        head.check_host()?;
        head.framing = framing::of(&fields, version)?;
        head.expects_continue = head.expectation()?;
        Ok(head)
    }

    /// The values of all fields with this name, in their order.
    pub fn values(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.values(name)
    }

    /// The value of the first field with this name, if it is there and text.
    #[must_use]
    pub fn value(&self, name: &'a str) -> Option<&'a str> {
        self.fields.value(name)
    }

    /// The value of the field with this name, which a request has once, if it is there and text. Of
    /// several, none counts.
    #[must_use]
    pub fn only_value(&self, name: &'a str) -> Option<&'a str> {
        self.fields.only_value(name)
    }

    /// The value of all fields with this name as one list (RFC 9110, 5.3), if there are any. What
    /// is no text is replaced.
    #[must_use]
    pub fn combined_value(&self, name: &'a str) -> Option<Cow<'a, str>> {
        self.fields.combined_value(name)
    }

    /// The host and port that the request is meant for (RFC 9112, 3.3).
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        self.target.authority().or_else(|| self.value("Host"))
    }

    /// What the client wants to become of the connection (RFC 9112, 9.3). An older client says
    /// itself when it is to be kept, which is more than this server gives it. Behind a request for a
    /// tunnel may stand what is meant for its other end (RFC 9110, 9.3.6).
    #[must_use]
    pub fn persistence(&self) -> Persistence {
        let mut options = self.fields.elements("Connection");
        if self.version == Version::Http10
            || self.target == Target::Tunnel
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
        for expectation in self.fields.elements("Expect") {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::Expectation);
            }
            expects = true;
        }
        Ok(expects && self.version >= Version::Http11)
    }
}
