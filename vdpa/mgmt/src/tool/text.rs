//! The result of a command as text, with the program's words and spaces.

use alloc::string::String;
use core::fmt::{self, Write};

use super::fields::{Fields, Value};
use super::options::Numbers;
use super::output::Output;
use super::shape;

pub(super) fn text(output: &Output, numbers: Numbers) -> String {
    let mut text = String::new();
    write(&mut text, output, numbers)
        .expect("a string takes any text, and nothing here fails to format");
    text
}

fn write(text: &mut String, output: &Output, numbers: Numbers) -> fmt::Result {
    let write_fields = match output {
        Output::Help(usage) => return text.write_str(usage),
        Output::Leaked { device, queues } => {
            return writeln!(
                text,
                "{device}: did not stop; the memory of {queues} queues is not used again"
            );
        }
        Output::Managers(_) => write_lines,
        Output::Configs(_) => write_config,
        Output::Done | Output::Devices(_) | Output::Statistics(..) => write_line,
    };
    for (_, section) in shape::document(output, numbers).iter() {
        for (name, fields) in members(section) {
            write!(text, "{name}:")?;
            write_fields(text, fields)?;
        }
    }
    Ok(())
}

fn members(section: &Value) -> impl Iterator<Item = (&str, &Fields)> {
    let members = match section {
        Value::Object(members) => Some(members.iter()),
        _ => None,
    };
    members
        .into_iter()
        .flatten()
        .filter_map(|(name, member)| match member {
            Value::Object(fields) => Some((&**name, fields)),
            _ => None,
        })
}

/// Each field on a line of its own.
fn write_lines(text: &mut String, fields: &Fields) -> fmt::Result {
    writeln!(text, " ")?;
    fields
        .iter()
        .try_for_each(|(key, value)| write_list(text, key, value))
}

/// All fields on one line.
fn write_line(text: &mut String, fields: &Fields) -> fmt::Result {
    for (key, value) in fields.iter() {
        write!(text, " {key} {value}")?;
    }
    writeln!(text)
}

/// All fields on one line that ends with a space, except lists.
fn write_config(text: &mut String, fields: &Fields) -> fmt::Result {
    text.write_char(' ')?;
    let is_list = |value: &Value| matches!(value, Value::List(_));
    for (key, value) in fields.iter().filter(|(_, value)| !is_list(value)) {
        write!(text, "{} {value} ", key.trim_end())?;
    }
    writeln!(text)?;
    fields
        .iter()
        .filter(|(_, value)| is_list(value))
        .try_for_each(|(key, value)| write_list(text, key, value))
}

/// A line of its own, without a space behind its key if nothing follows.
fn write_list(text: &mut String, key: &str, value: &Value) -> fmt::Result {
    match value {
        Value::List(values) if values.is_empty() => writeln!(text, "  {key}"),
        _ => writeln!(text, "  {key} {value}"),
    }
}
