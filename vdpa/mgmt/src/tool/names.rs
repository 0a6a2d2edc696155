//! What the program calls types, features and queues.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;
use vdpa::Features;

use crate::{ConfigReport, ManagerReport, QueueKind, TypeConfig};

use super::output::Numbers;

const NET: u32 = 1;
const BLOCK: u32 = 2;

/// A name, or the number behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Name {
    Nice(&'static str),
    Raw(u32),
}

impl core::fmt::Display for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Nice(name) => f.write_str(name),
            Self::Raw(number) => write!(f, "{number}"),
        }
    }
}

/// A type of devices that a management device makes.
pub(crate) fn class(device_type: u32, numbers: Numbers) -> Name {
    match (numbers, device_type) {
        (Numbers::Raw, _) => Name::Raw(device_type),
        (_, NET) => Name::Nice("net"),
        (_, BLOCK) => Name::Nice("block"),
        _ => Name::Nice("< unknown class >"),
    }
}

/// The type of a device.
pub(crate) fn device_type(device_type: u32, numbers: Numbers) -> Name {
    match (numbers, device_type) {
        (Numbers::Raw, _) => Name::Raw(device_type),
        (_, NET) => Name::Nice("network"),
        (_, BLOCK) => Name::Nice("block"),
        _ => Name::Nice("<unknown type>"),
    }
}

/// What a queue is for.
pub(crate) fn queue(kind: QueueKind) -> &'static str {
    match kind {
        QueueKind::Receive => "rx",
        QueueKind::Transmit => "tx",
        QueueKind::Control => "control_vq",
        QueueKind::Request => "request",
    }
}

/// Features, lowest bit first, as a device of this type uses them.
pub(crate) fn features(features: Features, device_type: u32, numbers: Numbers) -> Vec<String> {
    match numbers {
        Numbers::Raw => bits(features).map(|bit| format!("bit_{bit}")).collect(),
        Numbers::Names => bits(features)
            .map(|bit| feature(bit, device_type).into_owned())
            .collect(),
    }
}

fn bits(features: Features) -> impl Iterator<Item = u32> {
    (0..u128::BITS).filter(move |bit| features.bits() & (1 << bit) != 0)
}

/// The specification's name, except for the few bits to which the program gives another.
fn feature(bit: u32, device_type: u32) -> Cow<'static, str> {
    match bit {
        24 => "NOTIFY_ON_EMPTY".into(),
        27 => "ANY_LAYOUT".into(),
        28 => "RING_INDIRECT_DESC".into(),
        29 => "RING_EVENT_IDX".into(),
        _ => Features::from_bits(1 << bit)
            .names(device_type)
            .next()
            .unwrap_or_default(),
    }
}

/// The type whose names the features of a management device have: its only one.
pub(crate) fn only_class(manager: &ManagerReport) -> u32 {
    match manager.classes[..] {
        [class] => class,
        _ => 0,
    }
}

/// The type of a device that has such a configuration.
pub(crate) fn type_of(config: &ConfigReport) -> u32 {
    match config.fields {
        TypeConfig::Net(_) => NET,
        TypeConfig::Blk(_) => BLOCK,
    }
}
