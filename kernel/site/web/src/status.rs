//! The state of the machine as the page shows it and as `/api/status` gives it in JSON.
//!
//! The application fills it in from the kernel; this module only says which facts there are.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

/// Everything the page shows, at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Time since the kernel took over, in milliseconds.
    pub uptime_ms: u64,
    /// The memory of the machine.
    pub memory: Memory,
    /// The network, once it has an address.
    pub network: Option<Network>,
    /// The volume whose files are served.
    pub files: Files,
    /// What the server did so far.
    pub http: Http,
    /// The devices on the vDPA bus.
    pub vdpa: Vec<VdpaDevice>,
    /// The device tree, without its root.
    pub devices: Vec<Device>,
}

/// A device on the vDPA bus, as management sees it.
#[derive(Clone, Debug, Serialize)]
pub struct VdpaDevice {
    /// Its name, as in `vdpa0`.
    pub name: String,
    /// Its type, as in `network`.
    pub kind: String,
    /// Who made or found it.
    pub mgmtdev: String,
    /// How many queues it has.
    pub queues: u16,
    /// The bus driver that has it.
    pub driver: Option<String>,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// In use.
    pub used: u64,
    /// All there is.
    pub total: u64,
    /// What simulated devices can still have.
    pub left: u64,
}

/// The address of this machine.
#[derive(Clone, Debug, Serialize)]
pub struct Network {
    /// The IPv4 address with the length of its prefix.
    pub address: String,
    /// The router, if there is one.
    pub gateway: Option<String>,
}

/// The volume, or why there is none.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Files {
    /// Served under `/files/`.
    Ready {
        /// The disk, as in `blk0`.
        disk: String,
        /// The file system, as in `FAT32`.
        kind: &'static str,
        /// The size of the disk in bytes.
        size: u64,
    },
    /// Not served.
    Unavailable {
        /// Why, for people.
        reason: String,
    },
}

/// Counters of the server.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Http {
    /// Connections that are open now.
    pub open: u64,
    /// How many can be open at once.
    pub limit: u64,
    /// Requests answered.
    pub requests: u64,
    /// Bytes of answers sent, without their headers.
    pub sent: u64,
}

/// A node of the device tree.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    /// Its name, as in `vdpa0`.
    pub name: String,
    /// The driver bound to it.
    pub driver: Option<String>,
    /// What it says about itself.
    pub facts: Vec<Fact>,
    /// The features that were negotiated, by the names of the specification.
    pub features: Vec<String>,
    /// Its queues.
    pub queues: Vec<Queue>,
    /// The devices on it.
    pub children: Vec<Self>,
}

/// A property of a device.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// What it is.
    pub name: &'static str,
    /// Its value, for people.
    pub value: String,
}

/// A virtqueue and what went through it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Queue {
    /// Its index on the device.
    pub index: u16,
    /// What it is for, as in `rx`.
    pub name: &'static str,
    /// Its number of descriptors.
    pub size: u16,
    /// Buffers given to the device.
    pub added: u64,
    /// Buffers the device gave back.
    pub used: u64,
    /// Notifications sent to the device.
    pub kicks: u64,
    /// Notifications that the device did not want.
    pub suppressed: u64,
    /// Interrupts received.
    pub interrupts: u64,
}
