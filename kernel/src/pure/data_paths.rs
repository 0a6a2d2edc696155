//! Who drives which devices, as the command line says.

use crate::pure::command_line::CommandLine;

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
    /// The client gets it, and the author of the command line answers for that.
    Unsafe,
}

/// What drives QEMU's own virtio functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum QemuParent {
    /// What drives any virtio function.
    #[default]
    VpVdpa,
    /// The driver of Intel's VFs, as far as a function fits it.
    Ifcvf,
}

/// The keys `net`, `blk`, `vhost.noiommu` and `ifcvf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DataPaths {
    /// Of network devices.
    pub(crate) net: DataPath,
    /// Of block devices.
    pub(crate) blk: DataPath,
    /// For clients.
    pub(crate) without_iommu: WithoutIommu,
    /// On the PCI bus.
    pub(crate) qemu: QemuParent,
}

/// The key that lets clients have devices that nothing isolates, and its value.
#[cfg_attr(
    not(feature = "vhost"),
    expect(dead_code, reason = "there are no clients")
)]
pub(crate) const OPT_IN: &str = "vhost.noiommu=unsafe";

impl DataPaths {
    pub(crate) fn new(line: &CommandLine) -> Self {
        Self {
            net: path(line, "net"),
            blk: path(line, "blk"),
            without_iommu: if opts_in(line, "vhost.noiommu", "unsafe") {
                WithoutIommu::Unsafe
            } else {
                WithoutIommu::Refused
            },
            qemu: if opts_in(line, "ifcvf", "qemu") {
                QemuParent::Ifcvf
            } else {
                QemuParent::VpVdpa
            },
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

/// Whether a key that has only one value is there with it.
fn opts_in(line: &CommandLine, key: &str, only: &str) -> bool {
    let value = line.get(key);
    if let Some(other) = value.filter(|value| *value != only) {
        log::warn!("{key}={other}: the only value is {only}; it is ignored");
    }
    value == Some(only)
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
            "ifcvf",
            "ifcvf=on",
        ] {
            assert_eq!(paths(line), DataPaths::default(), "{line}");
        }
    }

    #[test]
    fn the_opt_in_is_by_name() {
        assert_eq!(paths(OPT_IN).without_iommu, WithoutIommu::Unsafe);
        assert_eq!(paths("ifcvf=qemu").qemu, QemuParent::Ifcvf);
    }
}
