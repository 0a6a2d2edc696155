//! The shapes of the program: which fields of a report are shown, under which keys and in which
//! order.
//!
//! The keys of block devices are the names of Linux's netlink attributes (`VDPA_ATTR_DEV_BLK_...`);
//! the program shows none.

use alloc::string::ToString;

use crate::{
    BlkConfig, ConfigReport, DeviceReport, ManagerReport, NetConfig, QueueStatistics, TypeConfig,
};

use super::fields::{Fields, Value};
use super::names;
use super::options::Numbers;
use super::output::Output;

/// Bits of `virtio_net_config.status` (VIRTIO 1.2, 5.1.4).
const LINK_UP: u16 = 1;
const LINK_ANNOUNCE: u16 = 2;

/// The result of a command as one object with one section, and in it one member for each thing
/// shown.
pub(super) fn document(output: &Output, numbers: Numbers) -> Fields {
    let (section, members) = match output {
        Output::Help(_) | Output::Done => return Fields::default(),
        Output::Managers(managers) => (
            "mgmtdev",
            managers.iter().fold(Fields::default(), |members, report| {
                members.with(report.handle.to_string(), manager(report, numbers))
            }),
        ),
        Output::Devices(devices) => (
            "dev",
            devices.iter().fold(Fields::default(), |members, report| {
                members.with(report.name.clone(), device(report, numbers))
            }),
        ),
        Output::Configs(configs) => (
            "config",
            configs
                .iter()
                .fold(Fields::default(), |members, (name, report)| {
                    members.with(name.clone(), config(report, numbers))
                }),
        ),
        Output::Statistics(name, report) => {
            let member = Fields::default().with(name.clone(), statistics(report));
            ("vstats", member)
        }
        Output::Leaked { device, queues } => {
            let fields = Fields::default().with("queues", *queues);
            ("leaked", Fields::default().with(device.clone(), fields))
        }
    };
    Fields::default().with(section, members)
}

fn manager(report: &ManagerReport, numbers: Numbers) -> Fields {
    let classes = report.classes.iter();
    let classes = classes.map(|class| names::class(*class, numbers)).collect();
    let features = names::features(report.features, names::only_class(report), numbers);
    Fields::default()
        .with("supported_classes", Value::List(classes))
        .with("max_supported_vqs", report.max_queues)
        .with("dev_features", features)
}

fn device(report: &DeviceReport, numbers: Numbers) -> Fields {
    add_device(Fields::default(), report, numbers)
}

/// Adds what a device is.
pub(super) fn add_device(fields: Fields, report: &DeviceReport, numbers: Numbers) -> Fields {
    fields
        .with("type", names::device_type(report.device_type, numbers))
        .with("mgmtdev", report.manager.to_string())
        .with("vendor_id", report.vendor_id)
        .with("max_vqs", report.max_queues)
        .with("max_vq_size", report.max_queue_size)
}

fn config(report: &ConfigReport, numbers: Numbers) -> Fields {
    let device_type = names::type_of(report);
    let features = |features| names::features(features, device_type, numbers);
    let fields = match &report.fields {
        TypeConfig::Net(config) => net(config),
        TypeConfig::Blk(config) => blk(config),
    };
    fields.with_some("negotiated_features", report.negotiated.map(features))
}

/// Two of the program's keys end with a space.
fn net(config: &NetConfig) -> Fields {
    let link = |status| if status & LINK_UP == 0 { "down" } else { "up" };
    let announce = |status| status & LINK_ANNOUNCE != 0;
    Fields::default()
        .with_some("mac", config.mac.map(|mac| mac.to_string()))
        .with_some("link ", config.status.map(link))
        .with_some("link_announce ", config.status.map(announce))
        .with_some("max_vq_pairs", config.max_queue_pairs)
        .with_some("mtu", config.mtu)
}

fn blk(config: &BlkConfig) -> Fields {
    let mut fields = Fields::default()
        .with("capacity", config.capacity)
        .with_some("size_max", config.size_max)
        .with_some("seg_max", config.seg_max)
        .with_some("blk_size", config.block_size);
    if let Some(topology) = &config.topology {
        fields = fields
            .with("phys_blk_exp", topology.physical_block_exponent)
            .with("align_offset", topology.alignment_offset)
            .with("min_io_size", topology.min_io_size)
            .with("opt_io_size", topology.opt_io_size);
    }
    fields = fields.with_some("num_queues", config.queues);
    if let Some(discard) = &config.discard {
        fields = fields
            .with("max_discard_sec", discard.max_sectors)
            .with("max_discard_seg", discard.max_segments)
            .with("discard_sec_align", discard.sector_alignment);
    }
    if let Some(zeroes) = &config.write_zeroes {
        fields = fields
            .with("max_write_zeroes_sec", zeroes.max_sectors)
            .with("max_write_zeroes_seg", zeroes.max_segments);
    }
    fields
        .with("read_only", config.read_only)
        .with("flush", config.flush)
}

fn statistics(report: &QueueStatistics) -> Fields {
    let kind = Fields::default().with("queue_type", names::queue(report.kind));
    let counters = report.counters.iter();
    counters.fold(kind, |fields, (name, value)| fields.with(*name, *value))
}
