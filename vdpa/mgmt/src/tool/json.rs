//! The result of a command as JSON: one object with one section, and in it one member for each thing shown.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::{
    BlkConfig, ConfigReport, DeviceReport, ManagerReport, NetConfig, QueueStatistics, TypeConfig,
};

use super::names::{self, Name};
use super::output::{Numbers, Output};

/// Bits of `virtio_net_config.status` (VIRTIO 1.2, 5.1.4).
pub(crate) const LINK_UP: u16 = 1;
pub(crate) const LINK_ANNOUNCE: u16 = 2;

const WRITTEN: &str = "the keys are names, and a string takes any text";

/// On one line.
pub(crate) fn compact(output: &Output, numbers: Numbers) -> String {
    serde_json::to_string(&Document { output, numbers }).expect(WRITTEN)
}

/// On many lines.
pub(crate) fn pretty(output: &Output, numbers: Numbers) -> String {
    serde_json::to_string_pretty(&Document { output, numbers }).expect(WRITTEN)
}

struct Document<'a> {
    output: &'a Output,
    numbers: Numbers,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let numbers = self.numbers;
        match self.output {
            Output::Managers(managers) => {
                let entries = managers.iter();
                let entries =
                    entries.map(|each| (each.handle.to_string(), Manager::new(each, numbers)));
                section(serializer, "mgmtdev", entries)
            }
            Output::Devices(devices) => {
                let entries = devices.iter();
                let entries = entries.map(|each| (each.name.clone(), Device::new(each, numbers)));
                section(serializer, "dev", entries)
            }
            Output::Configs(configs) => {
                let entries = configs.iter();
                let entries =
                    entries.map(|(name, config)| (name.clone(), Config::new(config, numbers)));
                section(serializer, "config", entries)
            }
            Output::Statistics(name, statistics) => section(
                serializer,
                "vstats",
                [(name.clone(), Statistics(statistics))],
            ),
            Output::Help(_) | Output::Done => serializer.serialize_map(Some(0))?.end(),
            Output::Leaked { device, queues } => section(
                serializer,
                "leaked",
                [(device.clone(), Leaked { queues: *queues })],
            ),
        }
    }
}

/// `{"NAME": {"HANDLE": {...}, ...}}`
fn section<S: Serializer, T: Serialize>(
    serializer: S,
    name: &str,
    entries: impl IntoIterator<Item = (String, T)>,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(name, &Members(entries.into_iter().collect()))?;
    map.end()
}

/// An object whose members keep their order.
struct Members<T>(Vec<(String, T)>);

impl<T: Serialize> Serialize for Members<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[derive(Serialize)]
struct Manager {
    supported_classes: Vec<Name>,
    max_supported_vqs: u32,
    dev_features: Vec<String>,
}

impl Manager {
    fn new(report: &ManagerReport, numbers: Numbers) -> Self {
        let classes = report.classes.iter();
        Self {
            supported_classes: classes.map(|class| names::class(*class, numbers)).collect(),
            max_supported_vqs: report.max_queues,
            dev_features: names::features(report.features, names::only_class(report), numbers),
        }
    }
}

#[derive(Serialize)]
struct Device {
    #[serde(rename = "type")]
    device_type: Name,
    mgmtdev: String,
    vendor_id: u32,
    max_vqs: u16,
    max_vq_size: u16,
}

impl Device {
    fn new(report: &DeviceReport, numbers: Numbers) -> Self {
        Self {
            device_type: names::device_type(report.device_type, numbers),
            mgmtdev: report.manager.to_string(),
            vendor_id: report.vendor_id,
            max_vqs: report.max_queues,
            max_vq_size: report.max_queue_size,
        }
    }
}

#[derive(Serialize)]
struct Config {
    #[serde(flatten)]
    fields: Fields,
    #[serde(skip_serializing_if = "Option::is_none")]
    negotiated_features: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Fields {
    Net(Net),
    Blk(Blk),
}

impl Config {
    fn new(report: &ConfigReport, numbers: Numbers) -> Self {
        let device_type = names::type_of(report);
        let negotiated = report.negotiated;
        Self {
            fields: match &report.fields {
                TypeConfig::Net(net) => Fields::Net(Net::new(net)),
                TypeConfig::Blk(blk) => Fields::Blk(Blk::new(blk)),
            },
            negotiated_features: negotiated
                .map(|features| names::features(features, device_type, numbers)),
        }
    }
}

/// The program's keys, of which two end with a space.
#[derive(Serialize)]
struct Net {
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(rename = "link ", skip_serializing_if = "Option::is_none")]
    link: Option<&'static str>,
    #[serde(rename = "link_announce ", skip_serializing_if = "Option::is_none")]
    link_announce: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_vq_pairs: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
}

impl Net {
    fn new(net: &NetConfig) -> Self {
        let link = |status| if status & LINK_UP == 0 { "down" } else { "up" };
        Self {
            mac: net.mac.map(|mac| mac.to_string()),
            link: net.status.map(link),
            link_announce: net.status.map(|status| status & LINK_ANNOUNCE != 0),
            max_vq_pairs: net.max_queue_pairs,
            mtu: net.mtu,
        }
    }
}

/// The keys are the names of Linux's netlink attributes (`VDPA_ATTR_DEV_BLK_...`); the program shows none.
#[derive(Serialize)]
struct Blk {
    capacity: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seg_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blk_size: Option<u32>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    topology: Option<Topology>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_queues: Option<u16>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    discard: Option<Discard>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    write_zeroes: Option<WriteZeroes>,
    read_only: bool,
    flush: bool,
}

#[derive(Serialize)]
struct Topology {
    phys_blk_exp: u8,
    align_offset: u8,
    min_io_size: u16,
    opt_io_size: u32,
}

#[derive(Serialize)]
struct Discard {
    max_discard_sec: u32,
    max_discard_seg: u32,
    discard_sec_align: u32,
}

#[derive(Serialize)]
struct WriteZeroes {
    max_write_zeroes_sec: u32,
    max_write_zeroes_seg: u32,
}

impl Blk {
    fn new(blk: &BlkConfig) -> Self {
        Self {
            capacity: blk.capacity,
            size_max: blk.size_max,
            seg_max: blk.seg_max,
            blk_size: blk.block_size,
            topology: blk.topology.map(|topology| Topology {
                phys_blk_exp: topology.physical_block_exponent,
                align_offset: topology.alignment_offset,
                min_io_size: topology.min_io_size,
                opt_io_size: topology.opt_io_size,
            }),
            num_queues: blk.queues,
            discard: blk.discard.map(|discard| Discard {
                max_discard_sec: discard.max_sectors,
                max_discard_seg: discard.max_segments,
                discard_sec_align: discard.sector_alignment,
            }),
            write_zeroes: blk.write_zeroes.map(|zeroes| WriteZeroes {
                max_write_zeroes_sec: zeroes.max_sectors,
                max_write_zeroes_seg: zeroes.max_segments,
            }),
            read_only: blk.read_only,
            flush: blk.flush,
        }
    }
}

struct Statistics<'a>(&'a QueueStatistics);

impl Serialize for Statistics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("queue_type", names::queue(self.0.kind))?;
        for (name, value) in &self.0.counters {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Leaked {
    queues: u64,
}
