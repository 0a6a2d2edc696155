//! The request target: what a request is for (RFC 9112, 3.2).

use super::refusal::Refusal;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A resource, in origin-form or in absolute-form.
    Resource {
        /// The host and port of absolute-form.
        authority: Option<&'a str>,
        /// The path, percent-encoded, from its first slash on.
        path: &'a str,
        /// What follows the question mark.
        query: &'a str,
    },
    /// The server as a whole, in asterisk-form or in the absolute-form that means the same.
    Server {
        /// The host and port of absolute-form.
        authority: Option<&'a str>,
    },
    /// The other end of a tunnel, in authority-form.
    Tunnel,
}

impl<'a> Target<'a> {
    /// Reads the target of a request with the method `method`.
    ///
    /// # Errors
    /// [`Refusal::Target`].
    pub fn parse(method: &str, text: &'a str) -> Result<Self, Refusal> {
        // A fragment is no part of a request's target, and other characters are none of a URI (RFC
        // 3986, 2).
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        {
            return Err(Refusal::Target);
        }
        match (method, text) {
            ("CONNECT", _) if is_authority(text) => return Ok(Self::Tunnel),
            ("CONNECT", _) => return Err(Refusal::Target),
            ("OPTIONS", "*") => return Ok(Self::Server { authority: None }),
            _ => {}
        }
        if text.starts_with('/') {
            let (path, query) = split_query(text);
            return Ok(Self::Resource {
                authority: None,
                path,
                query,
            });
        }
        let (scheme, rest) = text.split_once(':').ok_or(Refusal::Target)?;
        let rest = rest.strip_prefix("//").ok_or(Refusal::Target)?;
        let (authority, rest) = split_before(rest, ['/', '?']);
        if !scheme.eq_ignore_ascii_case("http") || authority.is_empty() || !is_authority(authority)
        {
            return Err(Refusal::Target);
        }
        let authority = Some(authority);
        if rest.is_empty() && method == "OPTIONS" {
            return Ok(Self::Server { authority });
        }
        let (path, query) = split_query(rest);
        Ok(Self::Resource {
            authority,
            path: if path.is_empty() { "/" } else { path },
            query,
        })
    }

    /// The host and port that the target itself names.
    #[must_use]
    pub const fn authority(&self) -> Option<&'a str> {
        match *self {
            Self::Resource { authority, .. } | Self::Server { authority } => authority,
            Self::Tunnel => None,
        }
    }
}

/// The text up to the first of the characters, and from there on.
fn split_before<const N: usize>(text: &str, characters: [char; N]) -> (&str, &str) {
    let split = text
        .find(characters)
        .and_then(|at| text.split_at_checked(at));
    split.unwrap_or((text, ""))
}

fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

/// Whether the text is a host, perhaps empty, perhaps with a port, and without user information
/// (RFC 3986, 3.2; RFC 9110, 4.2.4).
pub(super) fn is_authority(text: &str) -> bool {
    let (host_is_good, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else {
                return false;
            };
            let good = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            (!address.is_empty() && address.bytes().all(good), port)
        }
        None => {
            let (name, port) = split_before(text, [':']);
            let good =
                |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
            (name.bytes().all(good) && is_percent_encoded(name), port)
        }
    };
    let port_is_good = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    host_is_good && port_is_good
}

/// Whether two hexadecimal digits follow each percent sign (RFC 3986, 2.1).
fn is_percent_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes().get(..2).unwrap_or_default();
        digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource<'a>(authority: Option<&'a str>, path: &'a str, query: &'a str) -> Target<'a> {
        Target::Resource {
            authority,
            path,
            query,
        }
    }

    #[test]
    fn each_form_is_read() {
        for (method, text, expected) in [
            ("GET", "/a/b?c=d?e", resource(None, "/a/b", "c=d?e")),
            ("GET", "//a", resource(None, "//a", "")),
            ("GET", "http://h/a?b", resource(Some("h"), "/a", "b")),
            ("GET", "HTTP://h:80", resource(Some("h:80"), "/", "")),
            ("GET", "http://h?q", resource(Some("h"), "/", "q")),
            ("GET", "http://[::1]:8/", resource(Some("[::1]:8"), "/", "")),
            ("GET", "http://%41/", resource(Some("%41"), "/", "")),
            ("OPTIONS", "*", Target::Server { authority: None }),
            (
                "OPTIONS",
                "http://h",
                Target::Server {
                    authority: Some("h"),
                },
            ),
            ("OPTIONS", "/a", resource(None, "/a", "")),
            ("CONNECT", "h:443", Target::Tunnel),
        ] {
            assert_eq!(Target::parse(method, text), Ok(expected), "{method} {text}");
        }
    }

    #[test]
    fn what_fits_no_form_is_refused() {
        for (method, text) in [
            ("GET", ""),
            ("GET", "*"),
            ("GET", "a"),
            ("GET", "?a"),
            ("GET", "h:80"),
            ("GET", "/a#b"),
            ("GET", "/\u{fc}"),
            ("GET", "/\u{7f}"),
            ("GET", "https://h/"),
            ("GET", "http:///a"),
            ("GET", "http://user@h/"),
            ("GET", "http://h:80x/"),
            ("GET", "http://h%/"),
            ("GET", "http://h%4/"),
            ("GET", "http://%zz/"),
            ("GET", "http://[::1/"),
            ("GET", "http://[]/"),
            ("GET", "http://[::1]x/"),
            ("CONNECT", "/a"),
        ] {
            let result = Target::parse(method, text);
            assert_eq!(result, Err(Refusal::Target), "{method} {text}");
        }
    }
}
