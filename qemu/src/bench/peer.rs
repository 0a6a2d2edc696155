//! What a Linux guest needs for the same work. A record of other runs, not measured here.
//!
//! Debian's Linux 6.12 with one processor and 512 MB under QEMU 7.2.22 with TCG on two cores; the
//! simulated devices are its `vdpa_sim_blk` and `vdpa_sim_net` behind `virtio_vdpa`, the disk of
//! QEMU is `null-co`, its cards are two on a hub.

use guest_bench::row::{Access, Path, Row};

use super::figure::Rate;

/// Where the figures come from, for the reader of a table.
pub(super) const SOURCE: &str = "Linux 6.12 guest on QEMU 7.2, other run";

/// What is said of it in more words.
pub(super) const DETAILS: &str = "Debian's Linux 6.12, one processor, 512 MB, QEMU 7.2.22 with TCG on two cores; \
    vdpa_sim behind virtio_vdpa beside sim rows, virtio-pci beside pci rows; how many frames were under way is not \
    recorded, so the same figure stands at each depth";

/// A figure of Linux.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Peer {
    /// Operations per second.
    pub(super) rate: Rate,
    /// Instructions per operation, where they were counted.
    pub(super) instructions: Option<f64>,
}

/// The figure for the same work as `row`, if there is one. Linux has it through virtio alone, which
/// stands beside vhost too.
pub(super) fn of(row: &Row) -> Option<Peer> {
    match *row {
        Row::Disk {
            path,
            access,
            depth,
        } => disk(path, access, depth),
        Row::Net { path, len, .. } => net(path, len),
        Row::Iotlb { .. } | Row::Device(_) => None,
    }
}

fn disk(path: Path, access: Access, depth: u32) -> Option<Peer> {
    let pci = match path {
        Path::Pci => true,
        Path::SimVirtio | Path::SimVhost => false,
        Path::VduseVirtio | Path::VduseVhost => return None,
    };
    match (access, depth) {
        (Access::Read, 1) if pci => peer([8_039, 10_277, 10_832], 13_400),
        (Access::Write, 1) if pci => peer([8_483, 10_297, 10_753], 13_400),
        (Access::Read, 32) if pci => peer([93_070, 103_485, 107_879], 5_000),
        (Access::Read, 1) => peer([29_284, 30_373, 32_220], 18_700),
        (Access::Write, 1) => peer([26_882, 30_519, 31_331], 18_800),
        (Access::Read, 32) => peer([78_755, 97_048, 100_323], 6_900),
        _ => None,
    }
}

fn net(path: Path, len: usize) -> Option<Peer> {
    let pci = path == Path::Pci;
    match len {
        60 if pci => peer([38_983, 42_046, 47_908], 10_700),
        1514 if pci => peer([25_740, 27_421, 32_316], 14_700),
        60 => peer([39_132, 44_125, 46_186], 17_000),
        1514 => peer([29_751, 31_988, 33_646], 20_900),
        _ => None,
    }
}

fn peer([min, median, max]: [u32; 3], instructions: u32) -> Option<Peer> {
    Some(Peer {
        rate: Rate {
            min: min.into(),
            median: median.into(),
            max: max.into(),
        },
        instructions: Some(instructions.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_data_path_but_deep_writes_has_a_peer() {
        for row in Row::all() {
            let name = row.name();
            let data_path = name.starts_with("sim-") || name.starts_with("pci-");
            let deep_write = name.ends_with("write/32");
            assert_eq!(of(&row).is_some(), data_path && !deep_write, "{name}");
        }
    }

    #[test]
    fn figures_are_in_order() {
        for peer in Row::all().filter_map(|row| of(&row)) {
            let Rate { min, median, max } = peer.rate;
            assert!(min < median && median < max);
        }
    }
}
