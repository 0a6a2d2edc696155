//! Text put into HTML and into URLs, so that a file's name is never markup.

use core::fmt::{self, Write};

/// Text for an HTML element or a double-quoted attribute. Control characters, which HTML does not
/// allow there and a terminal would obey, become U+FFFD.
#[derive(Clone, Copy, Debug)]
pub struct Html<'a>(pub &'a str);

impl fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other if other.is_control() => f.write_char(char::REPLACEMENT_CHARACTER)?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// One segment of a URL's path: everything but RFC 3986's unreserved characters (2.3)
/// percent-encoded.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a>(pub &'a str);

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    f.write_char(char::from(byte))?;
                }
                other => write!(f, "%{other:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn markup_in_text_stays_text() {
        let text = Html("<b title=\"x\">it's & more</b>").to_string();
        assert_eq!(
            text,
            "&lt;b title=&quot;x&quot;&gt;it&#39;s &amp; more&lt;/b&gt;"
        );
    }

    #[test]
    fn control_characters_are_replaced() {
        let text = Html("a\x1b[31m\r\n\0\u{7f}\u{9b}b").to_string();
        assert_eq!(
            text,
            "a\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}b"
        );
    }

    #[test]
    fn a_segment_survives_the_way_through_a_url() {
        let name = "ä b?c#d%e&f/g.txt";
        let encoded = Segment(name).to_string();
        assert_eq!(encoded, "%C3%A4%20b%3Fc%23d%25e%26f%2Fg.txt");
        assert_eq!(crate::path::percent_decode(&encoded).unwrap(), name);
    }
}
