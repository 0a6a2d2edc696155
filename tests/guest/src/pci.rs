//! What enumeration found, and the chain from each function to what it became.

use alloc::sync::Arc;
use alloc::vec::Vec;

use vdpa::tree::Node;

use crate::bench::Bench;
use crate::outcome::Outcome;
use crate::{ensure, ensure_eq, guest_tests};

guest_tests![
    every_virtio_function_is_driven,
    paths_lead_from_the_function_to_the_device
];

/// The devices that the host puts into every machine.
const DEVICES: [&str; 3] = ["blk0", "blk1", "net0"];

const VIRTIO_VENDOR: u16 = 0x1af4;
/// A virtio-iommu, which some machines have beside.
const VIRTIO_IOMMU: u16 = 0x1057;

async fn every_virtio_function_is_driven(bench: &Bench) -> Outcome {
    bench.require_pci()?;
    let (mut driven, mut iommus) = (0, 0);
    for function in bench.system.pci().devices() {
        if let Some(driver) = bench.system.pci().driver_of(&function)
            && function.identity().vendor == VIRTIO_VENDOR
        {
            if function.identity().device == VIRTIO_IOMMU {
                iommus += 1;
            } else {
                ensure_eq!(driver, bench.parent_of(&function));
                driven += 1;
            }
        }
    }
    ensure_eq!(driven, DEVICES.len());
    ensure_eq!(bench.system.vdpa().devices().len(), driven + iommus);
    ensure_eq!(bench.virtio().devices().len(), driven + iommus);
    Ok(())
}

async fn paths_lead_from_the_function_to_the_device(bench: &Bench) -> Outcome {
    let place = match bench.require_pci() {
        Ok(()) => "pci",
        Err(_) => "virtio_mmio.",
    };
    for name in DEVICES {
        let mut nodes = Vec::new();
        collect(bench.system.devices(), &mut nodes);
        let node = nodes.iter().find(|node| kind(node.name()) == kind(name));
        let path = node.ok_or("the tree has no such device")?.path();
        let steps: Vec<&str> = path.split(" -> ").map(kind).collect();
        let end = &steps[steps.len().saturating_sub(4)..];
        ensure!(
            end[0].starts_with(place),
            "{path} does not begin at {place}"
        );
        ensure_eq!(end[1..], ["vdpa", "virtio", kind(name)]);
    }
    Ok(())
}

/// A name without the number at its end.
fn kind(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit())
}

fn collect(node: &Arc<Node>, all: &mut Vec<Arc<Node>>) {
    for child in node.children() {
        collect(&child, all);
        all.push(child);
    }
}
