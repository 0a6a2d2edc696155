//! From the words that a user types to a command.
//!
//! As in the program, objects and commands can be abbreviated, and options stand anywhere.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{Attributes, Handle, MacAddress};

use super::attribute::{self, Key};
use super::error::UsageError;
use super::options::{Numbers, Options};
use super::{json, usage};

/// A command, and how its result is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// How the result is to be shown.
    pub options: Options,
    /// What is to be done.
    pub command: Command,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Say what can be typed.
    Help(&'static str),
    /// Show one management device, or all.
    ShowManagers(Option<Handle>),
    /// Show one device, or all.
    ShowDevices(Option<String>),
    /// Show the configuration of one device, or of all.
    ShowConfigs(Option<String>),
    /// Show what a device has counted for one of its queues.
    ShowStatistics {
        /// The device.
        device: String,
        /// The index of the queue.
        queue: u32,
    },
    /// Make a device.
    Add {
        /// What it will be called.
        name: String,
        /// Who makes it.
        manager: Handle,
        /// How it will be.
        attributes: Box<Attributes>,
    },
    /// Delete a device.
    Delete(String),
    /// Move what runs on a device to another one.
    Move {
        /// The device.
        device: String,
        /// Where to.
        to: String,
    },
    /// Give a network device another address.
    SetMac {
        /// The device.
        device: String,
        /// The address.
        mac: MacAddress,
    },
}

impl Invocation {
    /// Reads the words after `vdpa`.
    ///
    /// # Errors
    /// [`UsageError`]: its text says what to type instead.
    pub fn parse(words: &[&str]) -> Result<Self, UsageError> {
        let (flags, words): (Vec<&str>, Vec<&str>) =
            words.iter().partition(|word| word.starts_with('-'));
        let mut options = Options::default();
        for flag in flags {
            apply(flag, &mut options)?;
        }
        let command = Command::parse(&words)?;
        Ok(Self { options, command })
    }
}

impl Command {
    /// Reads words without options.
    fn parse(words: &[&str]) -> Result<Self, UsageError> {
        match choose("object", words, &["help", "mgmtdev", "dev"])? {
            (Some("mgmtdev"), rest) => mgmtdev(rest),
            (Some("dev"), rest) => dev(rest),
            _ => Ok(Self::Help(usage::ALL)),
        }
    }

    /// Reads an object of JSON whose keys are the words of `dev add`:
    /// `{"name": "foo", "mgmtdev": "vdpasim_net", "mtu": 9000}`.
    ///
    /// # Errors
    /// [`UsageError`].
    pub fn add_from_json(json: &str) -> Result<Self, UsageError> {
        let words = json::words(json)?;
        add(&borrowed(&words))
    }

    /// Reads an object of JSON whose keys are the words of `dev set` after the device:
    /// `{"mac": "..."}`.
    ///
    /// # Errors
    /// [`UsageError`].
    pub fn set_from_json(device: &str, json: &str) -> Result<Self, UsageError> {
        let words = json::words(json)?;
        set(&[&["name", device], &borrowed(&words)[..]].concat())
    }

    /// Reads an object of JSON whose keys are the words of `dev move` after the device:
    /// `{"to": "vdpa1"}`.
    ///
    /// # Errors
    /// [`UsageError`].
    pub fn move_from_json(device: &str, json: &str) -> Result<Self, UsageError> {
        let words = json::words(json)?;
        move_device(&[&["name", device], &borrowed(&words)[..]].concat())
    }

    /// Whether it changes something, which not everybody may be allowed to.
    #[must_use]
    pub fn changes(&self) -> bool {
        match self {
            Self::Add { .. } | Self::Delete(_) | Self::Move { .. } | Self::SetMac { .. } => true,
            Self::Help(_)
            | Self::ShowManagers(_)
            | Self::ShowDevices(_)
            | Self::ShowConfigs(_)
            | Self::ShowStatistics { .. } => false,
        }
    }
}

fn apply(flag: &str, options: &mut Options) -> Result<(), UsageError> {
    const LONG: [&str; 3] = ["json", "pretty", "no-nice-names"];
    let name = flag.trim_start_matches('-');
    let long = LONG.iter().find(|long| long.starts_with(name));
    // Of a long option its first letter is the short one.
    let letters = match long.and_then(|long| long.get(..1)) {
        Some(letter) if !name.is_empty() => letter,
        _ => name,
    };
    if letters.is_empty() {
        return Err(UsageError::Option(flag.to_owned()));
    }
    for letter in letters.chars() {
        match letter {
            'j' => options.json(),
            'p' => options.pretty(),
            'n' => options.numbers = Numbers::Raw,
            _ => return Err(UsageError::Option(flag.to_owned())),
        }
    }
    Ok(())
}

fn mgmtdev(words: &[&str]) -> Result<Command, UsageError> {
    match choose("command", words, &["help", "show", "list"])? {
        (Some("show" | "list"), rest) => {
            let handle = at_most_one(rest, usage::MGMTDEV)?;
            let handle = handle
                .map(|word| attribute::handle("show", word))
                .transpose()?;
            Ok(Command::ShowManagers(handle))
        }
        _ => Ok(Command::Help(usage::MGMTDEV)),
    }
}

fn dev(words: &[&str]) -> Result<Command, UsageError> {
    const COMMANDS: &[&str] = &[
        "help", "show", "list", "add", "del", "config", "vstats", "set", "move",
    ];
    match choose("command", words, COMMANDS)? {
        (Some("help"), _) => Ok(Command::Help(usage::DEV)),
        (Some("add"), rest) => add(rest),
        (Some("del"), rest) => match at_most_one(rest, usage::DEL)? {
            Some(name) => Ok(Command::Delete(name.to_owned())),
            None => Err(UsageError::Missing("a device", usage::DEL)),
        },
        (Some("config"), rest) => match choose("command", rest, &["help", "show", "list"])? {
            (Some("help"), _) => Ok(Command::Help(usage::CONFIG)),
            (_, rest) => Ok(Command::ShowConfigs(one_name(rest, usage::CONFIG)?)),
        },
        (Some("vstats"), rest) => match choose("command", rest, &["help", "show", "list"])? {
            (Some("show" | "list"), rest) => vstats(rest),
            _ => Ok(Command::Help(usage::VSTATS)),
        },
        (Some("set"), rest) => set(rest),
        (Some("move"), rest) => move_device(rest),
        (_, rest) => Ok(Command::ShowDevices(one_name(rest, usage::DEV)?)),
    }
}

fn add(words: &[&str]) -> Result<Command, UsageError> {
    const KEYS: &[Key] = &[
        Key::Name,
        Key::Mgmtdev,
        Key::DeviceFeatures,
        Key::Mac,
        Key::Mtu,
        Key::MaxVqp,
        Key::Peer,
        Key::Capacity,
        Key::BlockSize,
        Key::NumQueues,
    ];
    let pairs = pairs(words, KEYS, usage::ADD)?;
    let mut attributes = Box::<Attributes>::default();
    let (mut name, mut manager) = (None, None);
    for (key, value) in pairs {
        match key {
            Key::Name => name = Some(value.to_owned()),
            Key::Mgmtdev => manager = Some(attribute::handle("mgmtdev", value)?),
            _ => attribute::read(key, value, &mut attributes)?,
        }
    }
    Ok(Command::Add {
        name: name.ok_or(UsageError::Missing("name NAME", usage::ADD))?,
        manager: manager.ok_or(UsageError::Missing("mgmtdev MGMTDEV", usage::ADD))?,
        attributes,
    })
}

fn set(words: &[&str]) -> Result<Command, UsageError> {
    let pairs = pairs(words, &[Key::Name, Key::Mac], usage::SET)?;
    let (mut name, mut mac) = (None, None);
    for (key, value) in pairs {
        match key {
            Key::Name => name = Some(value.to_owned()),
            _ => mac = Some(attribute::mac(value)?),
        }
    }
    Ok(Command::SetMac {
        device: name.ok_or(UsageError::Missing("name DEV", usage::SET))?,
        mac: mac.ok_or(UsageError::Missing("mac ADDRESS", usage::SET))?,
    })
}

fn move_device(words: &[&str]) -> Result<Command, UsageError> {
    let pairs = pairs(words, &[Key::Name, Key::To], usage::MOVE)?;
    let value = |wanted| pairs.iter().find(|(key, _)| *key == wanted);
    let name = |wanted| value(wanted).map(|(_, name)| (*name).to_owned());
    Ok(Command::Move {
        device: name(Key::Name).ok_or(UsageError::Missing("name DEV", usage::MOVE))?,
        to: name(Key::To).ok_or(UsageError::Missing("to DEV", usage::MOVE))?,
    })
}

fn vstats(words: &[&str]) -> Result<Command, UsageError> {
    let Some((device, rest)) = words.split_first() else {
        return Err(UsageError::Missing("a device", usage::VSTATS_SHOW));
    };
    let pairs = pairs(rest, &[Key::QueueIndex], usage::VSTATS_SHOW)?;
    let Some((_, value)) = pairs.first() else {
        return Err(UsageError::Missing("qidx INDEX", usage::VSTATS_SHOW));
    };
    Ok(Command::ShowStatistics {
        device: (*device).to_owned(),
        queue: attribute::queue_index(value)?,
    })
}

/// The first of `known` that the first word is or abbreviates, and the words after it; `None`
/// without words.
fn choose<'a, 'w>(
    what: &'static str,
    words: &'a [&'w str],
    known: &'static [&'static str],
) -> Result<(Option<&'static str>, &'a [&'w str]), UsageError> {
    let Some((word, rest)) = words.split_first() else {
        return Ok((None, words));
    };
    let found = known.iter().find(|known| known.starts_with(word));
    match found {
        Some(found) => Ok((Some(found), rest)),
        None => Err(UsageError::Unknown {
            what,
            word: (*word).to_owned(),
            known,
        }),
    }
}

fn at_most_one<'w>(words: &[&'w str], usage: &'static str) -> Result<Option<&'w str>, UsageError> {
    match words {
        [] => Ok(None),
        [word] => Ok(Some(word)),
        [_, extra, ..] => Err(UsageError::Extra {
            word: (*extra).to_owned(),
            usage,
        }),
    }
}

fn one_name(words: &[&str], usage: &'static str) -> Result<Option<String>, UsageError> {
    Ok(at_most_one(words, usage)?.map(ToOwned::to_owned))
}

/// Words and the values after them, each word at most once.
fn pairs<'w>(
    words: &[&'w str],
    keys: &'static [Key],
    usage: &'static str,
) -> Result<Vec<(Key, &'w str)>, UsageError> {
    let mut pairs: Vec<(Key, &str)> = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let key = keys.iter().find(|key| key.word() == *word);
        let key = *key.ok_or_else(|| UsageError::Attribute((*word).to_owned(), usage))?;
        if pairs.iter().any(|(other, _)| *other == key) {
            return Err(UsageError::Twice(key.word()));
        }
        let value = rest
            .next()
            .ok_or(UsageError::NoValue(key.word(), key.form()))?;
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}
