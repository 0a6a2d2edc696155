//! The words that take a value, and the values.

use alloc::borrow::ToOwned;
use core::str::FromStr;

use vdpa::Features;

use crate::{Attributes, Handle, MacAddress};

use super::error::UsageError;
use super::size;

/// A word that takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Name,
    Mgmtdev,
    DeviceFeatures,
    Mac,
    Mtu,
    MaxVqp,
    Peer,
    Capacity,
    BlockSize,
    NumQueues,
    QueueIndex,
    To,
}

impl Key {
    /// As it is typed.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Mgmtdev => "mgmtdev",
            Self::DeviceFeatures => "device_features",
            Self::Mac => "mac",
            Self::Mtu => "mtu",
            Self::MaxVqp => "max_vqp",
            Self::Peer => "peer",
            Self::Capacity => "capacity",
            Self::BlockSize => "block_size",
            Self::NumQueues => "num_queues",
            Self::QueueIndex => "qidx",
            Self::To => "to",
        }
    }

    /// What its value looks like.
    pub(crate) fn form(self) -> &'static str {
        match self {
            Self::Name => "a name, such as name foo",
            Self::To => "a device of `vdpa dev show`, such as to vdpa1",
            Self::Mgmtdev => {
                "a management device of `vdpa mgmtdev show`, such as mgmtdev vdpasim_net"
            }
            Self::DeviceFeatures => {
                "feature bits in hexadecimal, such as device_features 0x300020020"
            }
            Self::Mac => "six bytes in hexadecimal, such as mac 52:54:00:12:34:56",
            Self::Mtu => "a number of bytes from 68 to 65535, such as mtu 1500",
            Self::MaxVqp => "a number of queue pairs from 1 on, such as max_vqp 2",
            Self::Peer => "the name of a device of the same management device, such as peer foo",
            Self::Capacity => "a multiple of 512 bytes, also with K, M or G, such as capacity 64M",
            Self::BlockSize => "a number of bytes, such as block_size 512",
            Self::NumQueues => "a number of queues from 1 on, such as num_queues 2",
            Self::QueueIndex => "the index of a queue, such as qidx 0",
        }
    }

    fn bad(self, value: &str) -> UsageError {
        UsageError::Value {
            key: self.word(),
            value: value.to_owned(),
            form: self.form(),
        }
    }

    /// A decimal number.
    fn number<N: FromStr>(self, value: &str) -> Result<N, UsageError> {
        value.parse().map_err(|_| self.bad(value))
    }
}

/// Notes the value of an attribute.
pub(crate) fn read(key: Key, value: &str, attributes: &mut Attributes) -> Result<(), UsageError> {
    match key {
        Key::DeviceFeatures => attributes.device_features = Some(features(value)?),
        Key::Mac => attributes.mac = Some(mac(value)?),
        Key::Mtu => attributes.mtu = Some(key.number(value)?),
        Key::MaxVqp => attributes.max_queue_pairs = Some(key.number(value)?),
        Key::Peer => attributes.peer = Some(value.to_owned()),
        Key::Capacity => {
            let sectors = size::sectors(value).ok_or_else(|| key.bad(value))?;
            attributes.capacity = Some(sectors);
        }
        Key::BlockSize => attributes.block_size = Some(key.number(value)?),
        Key::NumQueues => attributes.queues = Some(key.number(value)?),
        Key::Name | Key::Mgmtdev | Key::QueueIndex | Key::To => {}
    }
    Ok(())
}

pub(crate) fn mac(value: &str) -> Result<MacAddress, UsageError> {
    value.parse().map_err(|_| Key::Mac.bad(value))
}

pub(crate) fn queue_index(value: &str) -> Result<u32, UsageError> {
    Key::QueueIndex.number(value)
}

/// The management device after the word `key`.
pub(crate) fn handle(key: &'static str, value: &str) -> Result<Handle, UsageError> {
    value.parse().map_err(|_| UsageError::Value {
        key,
        value: value.to_owned(),
        form: Key::Mgmtdev.form(),
    })
}

/// As in the program, always hexadecimal, with or without `0x`.
fn features(value: &str) -> Result<Features, UsageError> {
    let digits = value.strip_prefix("0x").unwrap_or(value);
    let bits = match digits.starts_with('+') {
        true => None,
        false => u128::from_str_radix(digits, 16).ok(),
    };
    bits.map(Features::from_bits)
        .ok_or_else(|| Key::DeviceFeatures.bad(value))
}
