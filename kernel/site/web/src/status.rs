//! The state of the machine as the page shows it and as `/api/status` gives it in JSON.
//!
//! The application fills it in from the kernel; this module only says which facts there are. What
//! devices tell about themselves is as the bus and its management report it.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Serialize, Serializer};
use vdpa::tree::NodeReport;
use vdpa_mgmt::DeviceReport;
use vdpa_mgmt::tool::Fields;

/// Everything the page shows, at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Time since the kernel took over, in milliseconds.
    pub uptime_ms: u64,
    /// The memory of the machine.
    pub memory: Memory,
    /// The IPv4 address, once there is one.
    pub ipv4: Option<Address>,
    /// The IPv6 address, once there is one.
    pub ipv6: Option<Address>,
    /// The volume whose files are served.
    pub files: Files,
    /// What the server did so far.
    pub http: Http,
    /// The devices on the vDPA bus.
    pub vdpa: Vec<VdpaDevice>,
    /// The device tree, without its root.
    pub devices: Vec<NodeReport>,
}

/// A device on the vDPA bus, as management sees it.
#[derive(Clone, Debug)]
pub struct VdpaDevice {
    /// What it is.
    pub report: DeviceReport,
    /// The bus driver that has it.
    pub driver: Option<String>,
}

/// Its name, what `vdpa -j dev show` tells about it, and its driver.
impl Serialize for VdpaDevice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = Fields::default().with("name", self.report.name.clone());
        let fields = self.report.add_to(name);
        match &self.driver {
            Some(driver) => fields.with("driver", driver.clone()),
            None => fields,
        }
        .serialize(serializer)
    }
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

/// An address of this machine.
#[derive(Clone, Debug, Serialize)]
pub struct Address {
    /// The address with the length of its prefix.
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
