//! The protocol of VDUSE (vDPA devices in user space), as plain values and bytes.
//!
//! A kernel sends [`Message`]s of [152 bytes](Message::SIZE) to the program that implements a
//! device, and takes a [`Response`] for each; everything else goes the other way, as structures of
//! [ioctls](ioctl). What comes from the other side is decoded, and nothing of it is believed.
//!
//! No system call is made here, and no device implemented.
//!
//! Source: Linux, `include/uapi/linux/vduse.h`, API versions 0 and 1. All numbers are in the
//! processor's order of bytes, as there.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod device;
mod error;
pub mod ioctl;
mod layout;
mod memory;
mod message;
mod queue;
mod wire;

pub use self::device::{
    ApiVersion, CONFIG_MAX, ConfigError, DeviceConfig, NAME_LEN, ProtocolFeatures,
};
pub use self::error::DecodeError;
pub use self::memory::{IotlbEntry, IovaInfo, Permission, UserMemory};
pub use self::message::{Message, Outcome, Request, Response};
pub use self::queue::{ConfigUpdate, KickFd, PackedState, QueueInfo, QueueSetup, RawState};
