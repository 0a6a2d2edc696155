//! The fields of a head, each a name with a value (RFC 9112, 5).

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use httparse::{EMPTY_HEADER, Status};

use super::refusal::Refusal;

/// More fields than this are refused.
pub(super) const FIELDS_MAX: usize = 64;

/// The fields of a head, all of them well-formed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Reads the fields with the empty line behind them.
    pub(super) fn parse(fields: &'a [u8]) -> Result<Self, Refusal> {
        let mut headers = [EMPTY_HEADER; FIELDS_MAX];
        match httparse::parse_headers(fields, &mut headers) {
            Ok(Status::Complete((length, _))) if length == fields.len() => Ok(Self(fields)),
            Err(httparse::Error::TooManyHeaders) => Err(Refusal::FieldsTooLong),
            Ok(_) | Err(_) => Err(Refusal::Field),
        }
    }

    /// The values of all fields with this name, in their order.
    pub(super) fn values(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        lines(self.0).filter_map(move |line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            line[..colon]
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| line[colon + 1..].trim_ascii())
        })
    }

    /// The value of the first field with this name, if it is there and text.
    pub(super) fn value(&self, name: &'a str) -> Option<&'a str> {
        str::from_utf8(self.values(name).next()?).ok()
    }

    /// The value of the only field with this name, if it is text.
    pub(super) fn only_value(&self, name: &'a str) -> Option<&'a str> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (Some(value), None) => str::from_utf8(value).ok(),
            _ => None,
        }
    }

    /// The value of all fields with this name as one list (RFC 9110, 5.3). What is no text is
    /// replaced.
    pub(super) fn combined_value(&self, name: &'a str) -> Option<Cow<'a, str>> {
        self.values(name)
            .map(String::from_utf8_lossy)
            .reduce(|list, more| format!("{list}, {more}").into())
    }

    /// The elements of the lists in all fields with this name, without empty ones (RFC 9110,
    /// 5.6.1).
    pub(super) fn elements(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }
}

/// The lines of a block that ends with an empty one.
fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    block
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// RFC 9110, 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
