//! What went wrong, and what to type instead.

use alloc::string::String;
use core::fmt;

use crate::MgmtError;

/// Words that make no command, or a command that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The words make no command.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The command was refused.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Words that make no command. The text says what to type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// There is no such option.
    #[error(
        "there is no option {0}; type -j for JSON, -p for JSON in lines, -n for numbers instead of names"
    )]
    Option(String),
    /// There is no such object or command.
    #[error("there is no {what} {word}; type {}", List(known))]
    Unknown {
        /// What the word was taken for.
        what: &'static str,
        /// The word.
        word: String,
        /// What there is.
        known: &'static [&'static str],
    },
    /// Something is missing in a command of this form.
    #[error("{0} is missing; type {1}")]
    Missing(&'static str, &'static str),
    /// There is one word too many in a command of this form.
    #[error("{word} is one word too many; type {}", Form(usage))]
    Extra {
        /// The word.
        word: String,
        /// How the command is typed.
        usage: &'static str,
    },
    /// The word is no attribute in a command of this form.
    #[error("there is no attribute {0} here; type {1}, `vdpa dev help` lists the attributes")]
    Attribute(String, &'static str),
    /// The attribute is there twice.
    #[error("{0} is there twice; type it once")]
    Twice(&'static str),
    /// The attribute has no value.
    #[error("{0} has no value; type {1}")]
    NoValue(&'static str, &'static str),
    /// The value is none of the attribute's.
    #[error("{key} {value} is not right; type {form}")]
    Value {
        /// The attribute.
        key: &'static str,
        /// What was typed.
        value: String,
        /// What its value looks like.
        form: &'static str,
    },
    /// It is no object of JSON with strings and numbers.
    #[error(
        "this is no JSON object with strings and numbers; send {{\"name\": \"foo\", \"mgmtdev\": \"vdpasim_net\", \"mtu\": 1500}}"
    )]
    Json,
}

/// A command that was refused. The text says what to type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it was about: a device or a management device.
    pub subject: String,
    /// Why.
    pub error: MgmtError,
}

impl core::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.subject.is_empty() {
            write!(f, "{}: ", self.subject)?;
        }
        write!(f, "{}; ", self.error)?;
        self.advise(f)
    }
}

impl Refused {
    /// What to type instead.
    fn advise(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.error {
            MgmtError::NoManager => "`vdpa mgmtdev show` lists them",
            MgmtError::NoDevice => "`vdpa dev show` lists them",
            MgmtError::NoQueue { .. } => "type the index of one of them after qidx",
            MgmtError::Exists => "type another one, `vdpa dev show` lists those that are taken",
            MgmtError::BadName => "type a name such as foo",
            MgmtError::NotCreated => "this one belongs to the hardware that `vdpa dev show` names",
            MgmtError::NoQueuePairs => "type max_vqp 1 or more",
            MgmtError::MtuTooSmall => "type mtu 68 or more",
            MgmtError::NotUnicast => "type one such as mac 52:54:00:12:34:56",
            MgmtError::MissingFeatures(missing) => {
                return write!(f, "add {missing} to device_features or leave it out");
            }
            MgmtError::UnknownFeatures(unknown) => {
                return write!(f, "take {unknown} out of device_features, `vdpa mgmtdev show` lists what there is");
            }
            MgmtError::UnsupportedAttributes(_) | MgmtError::WrongClass(_) => {
                "leave them out, or take another management device of `vdpa mgmtdev show`"
            }
            MgmtError::Ambiguous(_) => "add mac, mtu or max_vqp, or capacity, block_size or num_queues",
            MgmtError::TooManyQueues(_) => {
                "type a smaller max_vqp or num_queues; more than one pair comes with a control queue"
            }
            MgmtError::Unsupported => "`vdpa dev show` tells its type and its management device",
            MgmtError::Again => "`vdpa dev config show` shows negotiated_features then",
            MgmtError::Create(_) | MgmtError::Register(_) => {
                "`vdpa dev help` lists what can be chosen"
            }
            MgmtError::SameDevice => "type the name of another one after to",
            MgmtError::Move(_) => {
                "to must be a device of the same type, with the same contents and all features in use"
            }
            MgmtError::Device(_) => "try again, or delete it with vdpa dev del",
        })
    }
}

/// `a, b or c`
struct List(&'static [&'static str]);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            match index {
                0 => {}
                last if last + 1 == self.0.len() => f.write_str(" or ")?,
                _ => f.write_str(", ")?,
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}

/// The first line of a usage, as it would be typed.
struct Form(&'static str);

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.0.lines().next().unwrap_or_default();
        f.write_str(first.strip_prefix("Usage: ").unwrap_or(first))
    }
}
