//! JSON, written and read.
//!
//! Everything is written by one kind of writer, and numbers are not read as such: both would be
//! more code than all that is said here.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::UsageError;
use super::fields::Fields;

/// On one line.
pub(super) fn json(fields: &Fields) -> String {
    serde_json::to_string(fields).expect("the keys are names, and a string takes any text")
}

/// As [`serde_json::to_string_pretty`] writes it.
pub(super) fn pretty(fields: &Fields) -> String {
    let mut pretty = String::new();
    let mut depth = 0;
    let mut in_string = false;
    let mut escaped = false;
    // Nothing came yet after the bracket that opened an object or a list.
    let mut empty = false;
    for character in json(fields).chars() {
        if in_string {
            pretty.push(character);
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        let closes = matches!(character, '}' | ']');
        if closes {
            depth -= 1;
        }
        if empty != closes {
            new_line(&mut pretty, depth);
        }
        empty = matches!(character, '{' | '[');
        in_string = character == '"';
        pretty.push(character);
        match character {
            '{' | '[' => depth += 1,
            ',' => new_line(&mut pretty, depth),
            ':' => pretty.push(' '),
            _ => {}
        }
    }
    pretty
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(core::iter::repeat_n("  ", depth));
}

/// The members of an object as words and values.
pub(super) fn words(json: &str) -> Result<Vec<String>, UsageError> {
    let Members(members) = serde_json::from_str(json).map_err(|_| UsageError::Json)?;
    let mut words = Vec::new();
    for (key, value) in members {
        words.push(key);
        words.push(word(value.get())?);
    }
    Ok(words)
}

/// A string without its quotes, or a number as it is written.
fn word(value: &str) -> Result<String, UsageError> {
    match value.as_bytes().first() {
        Some(b'"') => serde_json::from_str(value).map_err(|_| UsageError::Json),
        Some(b'-' | b'0'..=b'9') => Ok(value.to_string()),
        _ => Err(UsageError::Json),
    }
}

/// The members of an object, in the order of their keys. Of members with the same key it is the
/// last one.
struct Members<'j>(Vec<(String, &'j RawValue)>);

impl<'j> Deserialize<'j> for Members<'j> {
    fn deserialize<D: Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'j> Visitor<'j> for MembersVisitor {
    type Value = Members<'j>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(String, &RawValue)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            match members.binary_search_by(|(other, _)| other.cmp(&key)) {
                Ok(at) => members[at].1 = value,
                Err(at) => members.insert(at, (key, value)),
            }
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool::fields::Value;

    #[test]
    fn lines_are_indented_as_serde_json_indents_them() {
        let words = ["", "\"", "\\", "a\\\"{[,:]}", "\u{1}", "\n", "\u{e9}"];
        let list = words.map(|word| word.into()).to_vec();
        let inner = Fields::default()
            .with("none", Value::List(Vec::new()))
            .with("nothing", Fields::default())
            .with("words, \"{all}\": of [them]", Value::List(list))
            .with("yes", true)
            .with("number\\", u64::MAX);
        let lists = Value::List(Vec::from([Value::List(Vec::new()), inner.clone().into()]));
        let outer = Fields::default().with("a", inner).with("b", lists);
        for fields in [Fields::default(), outer] {
            let expected = serde_json::to_string_pretty(&fields).unwrap();
            assert_eq!(pretty(&fields), expected);
        }
    }

    #[test]
    fn values_are_strings_and_numbers() {
        let text = r#" { "b" : 1500 , "a":"x\u0041\"", "c": -1e9, "b": 18446744073709551616 } "#;
        let expected = ["a", "xA\"", "b", "18446744073709551616", "c", "-1e9"];
        assert_eq!(words(text).unwrap(), expected);
        for wrong in [
            "",
            "4",
            "[]",
            "{",
            r#"{"a": 01}"#,
            r#"{"a": null}"#,
            r#"{"a": true}"#,
            r#"{"a": []}"#,
            r#"{"a": {}}"#,
            r#"{"a": "\x"}"#,
            r#"{"a": 1} x"#,
            r#"{1: 1}"#,
        ] {
            assert_eq!(words(wrong), Err(UsageError::Json), "{wrong}");
        }
    }
}
