//! The path of a request, turned into the names that lead to a file (RFC 3986).
//!
//! The names are decoded one by one after the path was cut at its slashes, so an encoded slash
//! never separates, and a path that climbs above the root is refused rather than bent back into it.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::escape::Segment;

/// Where a path leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The names from the root on; none is empty, `.` or `..`, and none holds a separator.
    pub names: Vec<String>,
    /// Whether the path ended with a slash, as the address of a directory does.
    pub trailing_slash: bool,
}

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A percent sign without two hexadecimal digits, or bytes that are no UTF-8.
    #[error("the path is not percent-encoded UTF-8")]
    Encoding,
    /// A name that no file can have, or a `..` above the root.
    #[error("no file can have this path")]
    Impossible,
}

impl Target {
    /// Reads a percent-encoded path, without its query. It counts from the root with or without a
    /// leading slash.
    ///
    /// # Errors
    /// [`PathError`], if it is malformed or cannot name a file.
    pub fn parse(encoded: &str) -> Result<Self, PathError> {
        let mut names = Vec::new();
        let mut trailing_slash = false;
        for segment in encoded.split('/') {
            let name = percent_decode(segment)?;
            trailing_slash = false;
            match name.as_str() {
                "" | "." => trailing_slash = true,
                ".." => {
                    names.pop().ok_or(PathError::Impossible)?;
                    trailing_slash = true;
                }
                _ if name.contains(is_impossible) => return Err(PathError::Impossible),
                _ => names.push(name),
            }
        }
        Ok(Self {
            names,
            trailing_slash,
        })
    }
}

/// The percent-encoded path, with a leading slash, and a trailing one if it has it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.names {
            write!(f, "/{}", Segment(name))?;
        }
        if self.trailing_slash || self.names.is_empty() {
            f.write_str("/")
        } else {
            Ok(())
        }
    }
}

/// Whether a path can lead to something of this name: whether the encoded name is read as it is.
#[must_use]
pub fn is_possible(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(is_impossible)
}

/// Characters that separate names here or elsewhere, or that no name may hold.
fn is_impossible(character: char) -> bool {
    matches!(character, '/' | '\\') || character.is_control()
}

/// The path with the characters decoded that never need an encoding, which means the same (RFC
/// 3986, 6.2.2.2). One that is malformed stays as it is.
#[must_use]
pub fn normalized(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut pieces = path.split('%');
    let mut text = String::from(pieces.next().unwrap_or_default());
    for piece in pieces {
        let Some((digits, rest)) = piece.split_at_checked(2) else {
            return Cow::Borrowed(path);
        };
        let Some(byte) = octet(&mut digits.bytes()) else {
            return Cow::Borrowed(path);
        };
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
            text.push_str(rest);
        } else {
            text.push('%');
            text.push_str(piece);
        }
    }
    Cow::Owned(text)
}

/// Decodes percent-encoded UTF-8.
///
/// # Errors
/// [`PathError::Encoding`], if it is malformed.
pub fn percent_decode(encoded: &str) -> Result<String, PathError> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        bytes.push(octet(&mut rest).ok_or(PathError::Encoding)?);
    }
    String::from_utf8(bytes).map_err(|_| PathError::Encoding)
}

/// The byte that the next two hexadecimal digits stand for.
fn octet(digits: &mut core::str::Bytes<'_>) -> Option<u8> {
    Some(hex_digit(digits.next()?)? << 4 | hex_digit(digits.next()?)?)
}

fn hex_digit(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn names(encoded: &str) -> Result<Vec<String>, PathError> {
        Target::parse(encoded).map(|target| target.names)
    }

    #[test]
    fn what_needs_no_encoding_is_decoded_and_nothing_else() {
        for (path, expected) in [
            ("/files/a", "/files/a"),
            ("/%66il%65s/%7e", "/files/~"),
            ("/%2f%2F%25%20%c3%a4", "/%2f%2F%25%20%c3%a4"),
            ("/%2566", "/%2566"),
            ("/%6%61", "/%6%61"),
            ("/%41%", "/%41%"),
            ("/%41%+1", "/%41%+1"),
            ("/%41%\u{e4}\u{e4}", "/%41%\u{e4}\u{e4}"),
            ("%41", "A"),
        ] {
            assert_eq!(normalized(path), expected);
        }
    }

    #[test]
    fn a_path_becomes_its_decoded_names() {
        assert_eq!(names("/a%20b/%C3%BC/c.txt").unwrap(), ["a b", "ü", "c.txt"]);
        assert_eq!(names("//a/./b//").unwrap(), ["a", "b"]);
        assert!(names("/").unwrap().is_empty());
    }

    #[test]
    fn a_trailing_slash_is_noticed() {
        assert!(Target::parse("/a/").unwrap().trailing_slash);
        assert!(Target::parse("/a/b/..").unwrap().trailing_slash);
        assert!(!Target::parse("/a/b").unwrap().trailing_slash);
    }

    #[test]
    fn dots_resolve_inside_and_never_climb_out() {
        assert_eq!(names("/a/../b").unwrap(), ["b"]);
        assert_eq!(names("/.."), Err(PathError::Impossible));
        assert_eq!(names("/a/../../b"), Err(PathError::Impossible));
        assert_eq!(names("/%2e%2e/b"), Err(PathError::Impossible));
    }

    #[test]
    fn encoded_separators_do_not_separate() {
        assert_eq!(names("/a%2Fb"), Err(PathError::Impossible));
        assert_eq!(names("/..%5C..%5Cb"), Err(PathError::Impossible));
        assert_eq!(names("/a%00b"), Err(PathError::Impossible));
    }

    #[test]
    fn broken_encoding_is_refused() {
        for path in ["/%", "/%4", "/%zz", "/%+1", "/%ff"] {
            assert_eq!(names(path), Err(PathError::Encoding), "{path}");
        }
    }

    #[test]
    fn a_target_prints_as_the_path_it_came_from() {
        for path in ["/", "/a%20b/c", "/a/%25/"] {
            assert_eq!(Target::parse(path).unwrap().to_string(), path);
        }
    }
}
