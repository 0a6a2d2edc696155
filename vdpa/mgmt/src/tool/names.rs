//! What the program calls types, features and queues.

use alloc::borrow::Cow;
use alloc::format;

use vdpa::Features;

use crate::{ConfigReport, ManagerReport, QueueKind, TypeConfig};

use super::fields::Value;
use super::options::Numbers;

const NET: u32 = 1;
const BLOCK: u32 = 2;

/// A type of devices that a management device makes.
pub(crate) fn class(device_type: u32, numbers: Numbers) -> Value {
    match (numbers, device_type) {
        (Numbers::Raw, _) => device_type.into(),
        (_, NET) => "net".into(),
        (_, BLOCK) => "block".into(),
        _ => "< unknown class >".into(),
    }
}

/// The type of a device.
pub(crate) fn device_type(device_type: u32, numbers: Numbers) -> Value {
    match (numbers, device_type) {
        (Numbers::Raw, _) => device_type.into(),
        (_, NET) => "network".into(),
        (_, BLOCK) => "block".into(),
        _ => "<unknown type>".into(),
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
pub(crate) fn features(features: Features, device_type: u32, numbers: Numbers) -> Value {
    let name = |bit| match numbers {
        Numbers::Raw => format!("bit_{bit}").into(),
        Numbers::Names => feature(bit, device_type),
    };
    Value::List(bits(features).map(|bit| Value::Word(name(bit))).collect())
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
