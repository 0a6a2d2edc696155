//! The guide knows every message.

use std::fs;

use qemu::passthrough::address::Address;
use qemu::passthrough::binding::BindError;
use qemu::passthrough::finding::{Cpu, Finding};
use qemu::passthrough::function::Function;
use qemu::passthrough::ids::Ids;
use qemu::passthrough::usage::Use;
use qemu::tree;

use crate::fake::VF;

#[test]
fn every_message_is_explained_in_the_guide() {
    let guide = fs::read_to_string(tree::root().join("docs/passthrough.md")).unwrap();
    for (message, part) in messages() {
        let message = message.replace(VF, "ADDRESS");
        assert!(message.contains(part), "{part} is not in {message}");
        assert!(guide.contains(part), "{part} is not in docs/passthrough.md");
    }
}

/// Each message, and the part of it that the guide has.
fn messages() -> Vec<(String, &'static str)> {
    let address: Address = VF.parse().unwrap();
    let ids = Ids {
        vendor: 0x8086,
        device: 0x1572,
        subvendor: 0x8086,
        subdevice: 1,
        class: 0x02_00_00,
    };
    let function = Function {
        address,
        ids,
        driver: Some("DRIVER".into()),
        driver_override: None,
        group: Some(42),
        physical: None,
        vfs: 0,
    };
    let findings = [
        (
            Finding::Absent {
                address,
                candidates: vec![],
            },
            "there is no function ADDRESS",
        ),
        (Finding::Bridge(address), "ADDRESS is a bridge"),
        (
            Finding::NoDriver { address, ids },
            "no driver of the guest takes it",
        ),
        (
            Finding::IommuOff(Cpu::Amd),
            "the IOMMU is off: /sys/kernel/iommu_groups is empty",
        ),
        (Finding::NoGroup(address), "ADDRESS is in no IOMMU group"),
        (
            Finding::GroupShared {
                address,
                group: 42,
                offenders: vec![function.clone()],
            },
            " of ADDRESS is not free:",
        ),
        (
            Finding::NotBound {
                function,
                steps: vec![],
            },
            "ADDRESS is with DRIVER, not with vfio-pci",
        ),
        (
            Finding::BindingDenied(address),
            "--bind may not change which driver ADDRESS has",
        ),
        (
            Finding::NodeAbsent("/dev/vfio/vfio".into()),
            "/dev/vfio/vfio is not there",
        ),
        (
            Finding::NodeDenied("/dev/vfio/N".into()),
            "/dev/vfio/N is not yours to open",
        ),
        (
            Finding::LockedMemory {
                limit: 1,
                needed: 2,
            },
            " KiB of memory may be locked, and the guest needs ",
        ),
        (
            Finding::NoInterruptRemapping,
            "interrupts are not remapped: a guest could raise any of this host's",
        ),
        (
            Finding::VfsEnabled { address, count: 1 },
            "ADDRESS has virtual functions that go with it:",
        ),
        (
            Finding::InUse {
                address,
                uses: vec![Use::Swap("sda".into())],
            },
            "this host uses ADDRESS:",
        ),
    ];
    let not_taken = BindError::NotTaken(address).to_string();
    findings
        .into_iter()
        .map(|(finding, part)| (finding.to_string(), part))
        .chain([(not_taken, "vfio-pci does not take ADDRESS")])
        .collect()
}
