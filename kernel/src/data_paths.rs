//! Who drives which devices, as the command line says.

use crate::command_line::CommandLine;

/// Who drives the devices of a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DataPath {
    /// The kernel's virtio drivers.
    #[default]
    Virtio,
    /// A client task with memory of its own, with the same drivers.
    Vhost,
}

/// What becomes of a client's device whose memory accesses nothing isolates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WithoutIommu {
    /// The client does not get it.
    #[default]
    Refused,
    /// The client gets it, and whoever wrote the command line answers for that.
    Unsafe,
}

/// The keys `net`, `blk` and `vhost.noiommu`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DataPaths {
    /// Of network devices.
    pub(crate) net: DataPath,
    /// Of block devices.
    pub(crate) blk: DataPath,
    /// For clients.
    pub(crate) without_iommu: WithoutIommu,
}

/// The key that lets clients have devices that nothing isolates, and its value.
pub(crate) const OPT_IN: &str = "vhost.noiommu=unsafe";

impl DataPaths {
    pub(crate) fn new(line: &CommandLine) -> Self {
        Self {
            net: path(line, "net"),
            blk: path(line, "blk"),
            without_iommu: without_iommu(line),
        }
    }
}

fn path(line: &CommandLine, key: &str) -> DataPath {
    match line.get(key) {
        None | Some("virtio") => DataPath::Virtio,
        Some("vhost") => DataPath::Vhost,
        Some(other) => {
            log::warn!("{key}={other}: not one of virtio, vhost; it is virtio");
            DataPath::Virtio
        }
    }
}

fn without_iommu(line: &CommandLine) -> WithoutIommu {
    match line.get("vhost.noiommu") {
        None => WithoutIommu::Refused,
        Some("unsafe") => WithoutIommu::Unsafe,
        Some(other) => {
            log::warn!("vhost.noiommu={other}: the only value is unsafe; it is ignored");
            WithoutIommu::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(line: &str) -> DataPaths {
        DataPaths::new(&CommandLine::new(line))
    }

    #[test]
    fn each_type_of_device_has_its_own_path() {
        assert_eq!(paths(""), DataPaths::default());
        let vhost = paths("net=vhost blk=virtio");
        assert_eq!((vhost.net, vhost.blk), (DataPath::Vhost, DataPath::Virtio));
        assert_eq!(paths("blk=vhost").blk, DataPath::Vhost);
        assert_eq!(paths("net=vhost net=virtio").net, DataPath::Virtio);
    }

    #[test]
    fn what_is_unknown_changes_nothing() {
        for line in [
            "net=",
            "net=Vhost",
            "blk=vdpa",
            "vhost.noiommu",
            "vhost.noiommu=yes",
        ] {
            assert_eq!(paths(line), DataPaths::default(), "{line}");
        }
    }

    #[test]
    fn the_opt_in_is_by_name() {
        assert_eq!(paths(OPT_IN).without_iommu, WithoutIommu::Unsafe);
    }
}
