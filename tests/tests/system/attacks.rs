//! Devices that write to, and read, what nobody lent to them, before each of the IOMMUs: what the
//! test program's `cards=attacks` does with QEMU's `edu` devices.
//!
//! One boot for each IOMMU tries everything. The one without shows that the attacks are real.

use std::time::{Duration, Instant};

use qemu::build::Profile;
use qemu::exit::guest_code;
use qemu::guest::Guest;
use qemu::iommu::Iommu;
use qemu::machine::Machine;
use tests::kernels;

system_tests![
    without_an_iommu_devices_reach_everything,
    amd_vi_refuses_what_was_not_lent,
    vt_d_refuses_what_was_not_lent,
    virtio_iommu_refuses_what_was_not_lent,
];

/// A boot that takes longer hangs: an idle host needs four seconds, in which engines work.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two engines that reach the first 4 GiB.
const ENGINES: [&str; 4] = [
    "-device",
    "edu,dma_mask=0xffffffff",
    "-device",
    "edu,dma_mask=0xffffffff",
];

/// `words` say what becomes of interrupts that an engine makes up, and whether faults are named.
fn attack(iommu: Option<Iommu>, words: &str) {
    let kernel = kernels::build("guest-tests", Profile::Compact).unwrap();
    let policy = iommu.map_or("", |_| "iommu=required");
    let guest = Guest {
        machine: Machine::Q35,
        iommu,
        append: format!("cards=attacks {words} {policy}"),
        extra: ENGINES.map(Into::into).to_vec(),
        ..Guest::new(kernel)
    };
    let ended = guest
        .spawn()
        .unwrap()
        .finish(Instant::now() + PATIENCE)
        .unwrap();
    let console = ended.console.join("\n");
    assert_eq!(guest_code(ended.status).ok(), Some(0), "{console}");
    // A line names the device and what it did.
    let named =
        |line: &String| line.contains("warning: pci0000:00:") && line.contains("DMA fault 1: ");
    let speaks = iommu.is_some() && !words.contains("faults=silent");
    assert_eq!(ended.console.iter().any(named), speaks, "{console}");
}

fn without_an_iommu_devices_reach_everything() {
    attack(None, "interrupts=none");
}

/// QEMU 7.2 keeps no log for it.
fn amd_vi_refuses_what_was_not_lent() {
    attack(Some(Iommu::Amd), "interrupts=all faults=silent");
}

/// QEMU 7.2 lets messages through that are not in the format of remapped ones.
fn vt_d_refuses_what_was_not_lent() {
    attack(Some(Iommu::Intel), "interrupts=others");
}

/// It remaps no interrupts.
fn virtio_iommu_refuses_what_was_not_lent() {
    attack(Some(Iommu::Virtio), "interrupts=none");
}
