//! The reader: one object whose values are strings and numbers (RFC 8259).
//!
//! Requests are nothing else, and `serde_json` would bring the arithmetic of numbers and values of
//! every shape along.

use alloc::string::String;
use alloc::vec::Vec;

/// The members of the object that `json` is, in the order of their keys. Of members with the same
/// key it is the last one. Numbers are as they are written. `None` for every other text.
pub(super) fn members(json: &str) -> Option<Vec<(String, String)>> {
    let mut reader = Reader { rest: json };
    let mut members: Vec<(String, String)> = Vec::new();
    reader.token('{')?;
    if reader.token('}').is_none() {
        loop {
            let key = reader.string()?;
            reader.token(':')?;
            let value = reader.value()?;
            match members.binary_search_by(|(other, _)| other.cmp(&key)) {
                Ok(at) => members.get_mut(at)?.1 = value,
                Err(at) => members.insert(at, (key, value)),
            }
            if reader.token(',').is_none() {
                break;
            }
        }
        reader.token('}')?;
    }
    reader.skip_space();
    reader.rest.is_empty().then_some(members)
}

struct Reader<'j> {
    rest: &'j str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// The character, if it is the next one behind white space.
    fn token(&mut self, character: char) -> Option<()> {
        self.skip_space();
        self.take(character).then_some(())
    }

    fn take(&mut self, character: char) -> bool {
        let rest = self.rest.strip_prefix(character);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        next
    }

    fn value(&mut self) -> Option<String> {
        self.skip_space();
        if self.rest.starts_with('"') {
            self.string()
        } else {
            self.number()
        }
    }

    fn string(&mut self) -> Option<String> {
        self.token('"')?;
        let mut string = String::new();
        loop {
            string.push(match self.next()? {
                '"' => return Some(string),
                '\\' => self.escaped()?,
                '\0'..' ' => return None,
                other => other,
            });
        }
    }

    /// What a backslash and what is behind it stand for.
    fn escaped(&mut self) -> Option<char> {
        Some(match self.next()? {
            same @ ('"' | '\\' | '/') => same,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.utf16(),
            _ => return None,
        })
    }

    /// A character in one or two units of UTF-16.
    fn utf16(&mut self) -> Option<char> {
        let first = self.unit()?;
        let Some(high) = first.checked_sub(0xd800).filter(|high| *high < 0x400) else {
            return char::from_u32(first);
        };
        if self.next()? != '\\' || self.next()? != 'u' {
            return None;
        }
        let low = self
            .unit()?
            .checked_sub(0xdc00)
            .filter(|low| *low < 0x400)?;
        char::from_u32(0x10000 + (high << 10) + low)
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |unit, _| Some(unit << 4 | self.next()?.to_digit(16)?))
    }

    fn number(&mut self) -> Option<String> {
        let start = self.rest;
        self.take('-');
        if !self.take('0') {
            self.digits()?;
        }
        if self.take('.') {
            self.digits()?;
        }
        if self.take('e') || self.take('E') {
            let _ = self.take('+') || self.take('-');
            self.digits()?;
        }
        Some(start.get(..start.len() - self.rest.len())?.into())
    }

    /// At least one digit.
    fn digits(&mut self) -> Option<()> {
        let rest = self.rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let found = rest.len() < self.rest.len();
        self.rest = rest;
        found.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::format;
    use alloc::string::ToString;

    use serde_json::Value;

    use super::*;

    /// The same with `serde_json`, which is right about what JSON is.
    fn expected(json: &str) -> Option<Vec<(String, String)>> {
        let members: BTreeMap<String, Value> = serde_json::from_str(json).ok()?;
        let text = |(key, value): (String, Value)| match value {
            Value::String(text) => Some((key, text)),
            Value::Number(number) => Some((key, number.to_string())),
            _ => None,
        };
        members.into_iter().map(text).collect()
    }

    #[test]
    fn objects_are_read_as_serde_json_reads_them() {
        for json in [
            "{}",
            " {\t\"name\"\r\n: \"a\" } ",
            r#"{"b":1,"a":"2","b":"last"}"#,
            r#"{"a":0,"b":-1,"c":1500}"#,
            r#"{"":"\"\\\/\b\f\n\r\t\u00e9\u20AC\ud83d\ude00é€😀"}"#,
        ] {
            assert!(expected(json).is_some(), "{json}");
            assert_eq!(members(json), expected(json), "{json}");
        }
    }

    /// Each character is left out, replaced, and has another one before it.
    #[test]
    fn what_is_one_character_off_is_read_as_serde_json_reads_it() {
        let others = "{}[]:,\"\\/ \n\0\u{1f}\u{a0}019-+.eEuUbdfDnrtx";
        for json in [
            r#"{}"#,
            r#" {"a" : 10, "b":"x"} "#,
            r#"{"n":-1.5e+0,"m":0.0E-1}"#,
            r#"{"e":"\"\n\ud83d\ude00","f":"\udbff\udfffé"}"#,
        ] {
            for (at, old) in json.char_indices() {
                let (before, after) = (&json[..at], &json[at + old.len_utf8()..]);
                let replaced = others.chars().map(|new| format!("{before}{new}{after}"));
                let inserted = others
                    .chars()
                    .map(|new| format!("{before}{new}{old}{after}"));
                let omitted = [before.to_string(), format!("{before}{after}")];
                for json in omitted.into_iter().chain(replaced).chain(inserted) {
                    let (read, expected) = (members(&json), expected(&json));
                    assert_eq!(read.is_some(), expected.is_some(), "{json}");
                    for (read, expected) in read.iter().flatten().zip(expected.iter().flatten()) {
                        assert_eq!(read.0, expected.0, "{json}");
                        // Numbers are not written as `serde_json` would write them.
                        if expected.1.parse::<f64>().is_err() {
                            assert_eq!(read.1, expected.1, "{json}");
                        }
                    }
                }
            }
        }
    }
}
