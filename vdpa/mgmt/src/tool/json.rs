//! JSON, written and read.
//!
//! Everything is written by one kind of writer: two would be more code than all that is said here.

mod read;

use alloc::string::String;
use alloc::vec::Vec;

use super::error::UsageError;
use super::fields::Fields;

/// On one line.
pub(super) fn json(fields: &Fields) -> String {
    let json = serde_json::to_string(fields);
    // `expect` could print every error of the crate.
    json.unwrap_or_else(|_| unreachable!("the keys are names, and a string takes any text"))
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

/// The members of an object of JSON as words and values, in the order of the words: what
/// `{"b": "x", "a": 1}` says is `a 1 b x`. Of members with the same key it is the last one, and a
/// number is as it is written.
///
/// # Errors
/// [`UsageError::Json`], also if a value is neither a string nor a number.
pub fn words(json: &str) -> Result<Vec<String>, UsageError> {
    let mut words = Vec::new();
    for (key, value) in read::members(json).ok_or(UsageError::Json)? {
        words.push(key);
        words.push(value);
    }
    Ok(words)
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
