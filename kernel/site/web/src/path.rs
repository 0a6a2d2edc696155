//! The path of a request, turned into the names that lead to a file (RFC 3986).
//!
//! The names are decoded one by one after the path was cut at its slashes, so an encoded slash
//! never separates, and a path that climbs above the root is refused rather than bent back into it.

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
        let high = rest.next().and_then(hex_digit).ok_or(PathError::Encoding)?;
        let low = rest.next().and_then(hex_digit).ok_or(PathError::Encoding)?;
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes).map_err(|_| PathError::Encoding)
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
