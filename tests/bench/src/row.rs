//! What is measured: one [`Row`] for each line of the table.
//!
//! A row's name is its path from the device to the depth of the queue, as `sim-blk/virtio/read/32`.
//! The guest is told by parts of names what to measure, and the host knows by the same rule what
//! must come back.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Bytes of a request to a disk.
pub const REQUEST_LEN: usize = 4096;

/// How many requests or frames are in flight at once.
const DEPTHS: [u32; 2] = [1, 32];

/// Lengths of frames in bytes, without the check sequence: the shortest and the longest of
/// Ethernet.
const FRAMES: [usize; 2] = [60, 1514];

/// Entries of an IOTLB.
const ENTRIES: [u32; 3] = [1, 1_000, 100_000];

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Requests of [`REQUEST_LEN`] bytes to a disk.
    Disk {
        /// Which disk.
        path: Path,
        /// What is requested.
        access: Access,
        /// How many requests are in flight.
        depth: u32,
    },
    /// Frames that come back.
    Net {
        /// Through which card.
        path: Path,
        /// The length of a frame in bytes.
        len: usize,
        /// How many frames are under way.
        depth: u32,
    },
    /// Operations of an IOTLB.
    Iotlb {
        /// Which.
        operation: IotlbOperation,
        /// How many entries the table has.
        entries: u32,
    },
    /// A simulated device that is added through the management interface and deleted again.
    Device(Class),
}

/// From the driver to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// A simulated device through `virtio_vdpa`.
    SimVirtio,
    /// A simulated device through `vhost_vdpa`.
    SimVhost,
    /// A device of a task through `virtio_vdpa`.
    VduseVirtio,
    /// A device of a task through `vhost_vdpa`.
    VduseVhost,
    /// QEMU's own virtio device on PCI through `vp_vdpa` and `virtio_vdpa`.
    Pci,
}

/// What a request to a disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// An operation of an IOTLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IotlbOperation {
    /// One more page is mapped.
    Map,
    /// A mapped page is taken away.
    Unmap,
    /// The target of a mapped page is looked up.
    Translate,
}

/// The class of a simulated device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A network card.
    Net,
    /// A disk.
    Block,
}

impl Row {
    /// Every row, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        disk_rows()
            .chain(net_rows())
            .chain(iotlb_rows())
            .chain([Self::Device(Class::Net), Self::Device(Class::Block)])
    }

    /// The rows whose names contain every one of these words.
    pub fn selected(words: &[impl AsRef<str>]) -> Vec<Self> {
        let selects = |row: &Self| {
            let name = row.name();
            words.iter().all(|word| name.contains(word.as_ref()))
        };
        Self::all().filter(selects).collect()
    }

    /// The row's name.
    #[must_use]
    pub fn name(&self) -> String {
        self.to_string()
    }
}

fn disk_rows() -> impl Iterator<Item = Row> {
    use Path::{Pci, SimVhost, SimVirtio, VduseVhost, VduseVirtio};
    let paths = [SimVirtio, SimVhost, VduseVirtio, VduseVhost, Pci];
    paths.into_iter().flat_map(|path| {
        let accesses = [Access::Read, Access::Write].into_iter();
        accesses.flat_map(move |access| {
            DEPTHS.map(|depth| Row::Disk {
                path,
                access,
                depth,
            })
        })
    })
}

fn net_rows() -> impl Iterator<Item = Row> {
    let paths = [Path::SimVirtio, Path::SimVhost, Path::Pci].into_iter();
    paths.flat_map(|path| {
        FRAMES
            .into_iter()
            .flat_map(move |len| DEPTHS.map(|depth| Row::Net { path, len, depth }))
    })
}

fn iotlb_rows() -> impl Iterator<Item = Row> {
    use IotlbOperation::{Map, Translate, Unmap};
    [Map, Unmap, Translate]
        .into_iter()
        .flat_map(|operation| ENTRIES.map(|entries| Row::Iotlb { operation, entries }))
}

impl Path {
    /// Whose device it is, and through which bus driver.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::SimVirtio => ("sim", "virtio"),
            Self::SimVhost => ("sim", "vhost"),
            Self::VduseVirtio => ("vduse", "virtio"),
            Self::VduseVhost => ("vduse", "vhost"),
            Self::Pci => ("pci", "virtio"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk {
                path,
                access,
                depth,
            } => {
                let access = match access {
                    Access::Read => "read",
                    Access::Write => "write",
                };
                let (device, way) = path.words();
                write!(f, "{device}-blk/{way}/{access}/{depth}")
            }
            Self::Net { path, len, depth } => {
                let (device, way) = path.words();
                write!(f, "{device}-net/{way}/{len}B/{depth}")
            }
            Self::Iotlb { operation, entries } => {
                let operation = match operation {
                    IotlbOperation::Map => "map",
                    IotlbOperation::Unmap => "unmap",
                    IotlbOperation::Translate => "translate",
                };
                write!(f, "iotlb/{operation}/{entries}")
            }
            Self::Device(class) => f.write_str(match class {
                Class::Net => "device/sim-net",
                Class::Block => "device/sim-blk",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_without_spaces() {
        let names: Vec<String> = Row::all().map(|row| row.name()).collect();
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert_eq!(names.len(), 20 + 12 + 9 + 2);
        assert!(names.iter().all(|name| !name.contains([' ', ','])));
    }

    #[test]
    fn words_select_the_rows_that_have_all_of_them() {
        let names = |words: &[&str]| -> Vec<String> {
            Row::selected(words).iter().map(Row::name).collect()
        };
        assert_eq!(
            names(&["sim-blk/vhost", "read"]),
            ["sim-blk/vhost/read/1", "sim-blk/vhost/read/32"]
        );
        assert_eq!(names(&["1514", "/32", "pci"]), ["pci-net/virtio/1514B/32"]);
        assert_eq!(names(&[]).len(), Row::all().count());
        assert!(names(&["floppy"]).is_empty());
    }
}
