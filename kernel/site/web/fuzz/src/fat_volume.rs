//! A volume that is damaged anywhere, before a client that follows all links.

use hadris_fat_raw::{RootLocation, parse_boot};

use super::device::Device;
use super::input::{Input, patch};
use super::visitor::visit;
use super::volumes::{KINDS, volume};

/// A volume, and where its parts begin.
struct Volume {
    device: Device,
    table: usize,
    root: usize,
}

thread_local! {
    /// One of each variant but the largest, which takes too long.
    static VOLUMES: [Volume; 2] = [Volume::new(0), Volume::new(1)];
}

impl Volume {
    fn new(kind: usize) -> Self {
        let (kind, size) = KINDS[kind];
        let image = volume(kind, size);
        let boot = image[..512].try_into().expect("a sector");
        let geometry = parse_boot(boot).expect("a volume");
        let root = match geometry.root() {
            RootLocation::Fixed { start, .. } => Some(start),
            RootLocation::Cluster(cluster) => geometry.cluster_offset(cluster),
        };
        let place = |offset: u64| usize::try_from(offset).expect("it is in memory");
        Self {
            table: place(geometry.fat_start()),
            root: place(root.expect("it has a root")),
            device: Device::new(image, 512),
        }
    }
}

/// Visits one volume.
///
/// # Panics
/// If a question has no end, or a link leads nowhere.
pub fn fat_volume(data: &[u8]) {
    let mut input = Input(data);
    let which = usize::from(input.byte()) % 2;
    VOLUMES.with(|volumes| visit_damaged(&volumes[which], input));
}

fn visit_damaged(volume: &Volume, mut input: Input<'_>) {
    let mut old = Vec::new();
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let mut image = volume.device.image.borrow_mut();
        let at = match input.byte() % 8 {
            0 => usize::from(input.byte()) % 90,
            1 => 510,
            2 | 3 => volume.table + usize::from(input.byte()),
            4..7 => volume.root + input.below(1024),
            _ => input.below(image.len()),
        };
        let count = 1 + usize::from(input.byte() % 8);
        old.push((at, patch(&mut image, at, input.bytes(count))));
    }
    // Either answer will do: the visitor has looked at the rest.
    let _ = visit(&volume.device, None);
    let mut image = volume.device.image.borrow_mut();
    for (at, bytes) in old.iter().rev() {
        patch(&mut image, *at, bytes);
    }
}
