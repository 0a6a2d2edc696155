//! The result of a command as text, with the program's words and spaces.

use alloc::string::{String, ToString};
use core::fmt::{self, Write};

use vdpa::Features;

use crate::{
    BlkConfig, ConfigReport, DeviceReport, ManagerReport, NetConfig, QueueStatistics, TypeConfig,
};

use super::json::{LINK_ANNOUNCE, LINK_UP};
use super::names;
use super::output::{Numbers, Output};

pub(crate) fn text(output: &Output, numbers: Numbers) -> String {
    let mut text = String::new();
    write(&mut text, output, numbers)
        .expect("a string takes any text, and nothing here fails to format");
    text
}

fn write(text: &mut String, output: &Output, numbers: Numbers) -> fmt::Result {
    match output {
        Output::Help(usage) => text.write_str(usage),
        Output::Managers(managers) => managers
            .iter()
            .try_for_each(|manager| write_manager(text, manager, numbers)),
        Output::Devices(devices) => devices
            .iter()
            .try_for_each(|device| write_device(text, device, numbers)),
        Output::Configs(configs) => configs
            .iter()
            .try_for_each(|(name, config)| write_config(text, name, config, numbers)),
        Output::Statistics(name, statistics) => write_statistics(text, name, statistics),
        Output::Done => Ok(()),
        Output::Leaked { device, queues } => writeln!(
            text,
            "{device}: did not stop; the memory of {queues} queues is not used again"
        ),
    }
}

fn write_manager(text: &mut String, manager: &ManagerReport, numbers: Numbers) -> fmt::Result {
    writeln!(text, "{}: ", manager.handle)?;
    let classes = manager.classes.iter();
    let classes = classes.map(|class| names::class(*class, numbers).to_string());
    write_list(text, "supported_classes", classes)?;
    writeln!(text, "  max_supported_vqs {}", manager.max_queues)?;
    let features = names::features(manager.features, names::only_class(manager), numbers);
    write_list(text, "dev_features", features)
}

fn write_device(text: &mut String, device: &DeviceReport, numbers: Numbers) -> fmt::Result {
    writeln!(
        text,
        "{}: type {} mgmtdev {} vendor_id {} max_vqs {} max_vq_size {}",
        device.name,
        names::device_type(device.device_type, numbers),
        device.manager,
        device.vendor_id,
        device.max_queues,
        device.max_queue_size
    )
}

fn write_config(
    text: &mut String,
    name: &str,
    config: &ConfigReport,
    numbers: Numbers,
) -> fmt::Result {
    write!(text, "{name}: ")?;
    match &config.fields {
        TypeConfig::Net(net) => write_net(text, net)?,
        TypeConfig::Blk(blk) => write_blk(text, blk)?,
    }
    writeln!(text)?;
    match config.negotiated {
        Some(features) => write_features(text, features, config, numbers),
        None => Ok(()),
    }
}

fn write_features(
    text: &mut String,
    features: Features,
    config: &ConfigReport,
    numbers: Numbers,
) -> fmt::Result {
    let features = names::features(features, names::type_of(config), numbers);
    write_list(text, "negotiated_features", features)
}

fn write_net(text: &mut String, net: &NetConfig) -> fmt::Result {
    if let Some(mac) = net.mac {
        write!(text, "mac {mac} ")?;
    }
    if let Some(status) = net.status {
        let link = if status & LINK_UP == 0 { "down" } else { "up" };
        let announce = status & LINK_ANNOUNCE != 0;
        write!(text, "link {link} link_announce {announce} ")?;
    }
    field(text, "max_vq_pairs", net.max_queue_pairs)?;
    field(text, "mtu", net.mtu)
}

fn write_blk(text: &mut String, blk: &BlkConfig) -> fmt::Result {
    field(text, "capacity", Some(blk.capacity))?;
    field(text, "size_max", blk.size_max)?;
    field(text, "seg_max", blk.seg_max)?;
    field(text, "blk_size", blk.block_size)?;
    if let Some(topology) = &blk.topology {
        field(text, "phys_blk_exp", Some(topology.physical_block_exponent))?;
        field(text, "align_offset", Some(topology.alignment_offset))?;
        field(text, "min_io_size", Some(topology.min_io_size))?;
        field(text, "opt_io_size", Some(topology.opt_io_size))?;
    }
    field(text, "num_queues", blk.queues)?;
    if let Some(discard) = &blk.discard {
        field(text, "max_discard_sec", Some(discard.max_sectors))?;
        field(text, "max_discard_seg", Some(discard.max_segments))?;
        field(text, "discard_sec_align", Some(discard.sector_alignment))?;
    }
    if let Some(zeroes) = &blk.write_zeroes {
        field(text, "max_write_zeroes_sec", Some(zeroes.max_sectors))?;
        field(text, "max_write_zeroes_seg", Some(zeroes.max_segments))?;
    }
    field(text, "read_only", Some(blk.read_only))?;
    field(text, "flush", Some(blk.flush))
}

fn write_statistics(text: &mut String, name: &str, statistics: &QueueStatistics) -> fmt::Result {
    write!(text, "{name}: queue_type {}", names::queue(statistics.kind))?;
    for (counter, value) in &statistics.counters {
        write!(text, " {counter} {value}")?;
    }
    writeln!(text)
}

/// A field, if the device has it.
fn field(text: &mut String, name: &str, value: Option<impl fmt::Display>) -> fmt::Result {
    match value {
        Some(value) => write!(text, "{name} {value} "),
        None => Ok(()),
    }
}

/// A line of its own with words.
fn write_list(
    text: &mut String,
    name: &str,
    words: impl IntoIterator<Item = String>,
) -> fmt::Result {
    write!(text, "  {name}")?;
    for word in words {
        write!(text, " {word}")?;
    }
    writeln!(text)
}
