//! What is found out about a host.

use qemu::passthrough::finding::{Finding, Gravity};
use qemu::passthrough::host::Host;
use qemu::passthrough::ids::Kind;
use qemu::passthrough::survey::Survey;
use qemu::passthrough::{Binder, Caution, Request};

use crate::fake::{BRIDGE, FakeHost, IFC_BLK, IFC_NET, OTHER, USB, VF};

/// A request for these functions, to be bound by somebody.
pub fn request(functions: &[&str]) -> Request {
    Request {
        functions: functions.iter().map(|f| f.parse().unwrap()).collect(),
        binder: Binder::Somebody,
        caution: Caution::Heeded,
        memory: "128M".parse().unwrap(),
    }
}

/// As [`request`], to be bound by the program.
pub fn binding(functions: &[&str]) -> Request {
    Request {
        binder: Binder::Program,
        ..request(functions)
    }
}

/// A host with [`VF`] bound to `vfio-pci`: nothing is missing.
pub fn ready() -> FakeHost {
    let fake = FakeHost::new();
    fake.remove("sys/bus/pci/devices/0000:3b:00.2/driver");
    fake.bind(VF, "vfio-pci");
    fake
}

/// What is said about [`VF`], each finding in a line of its own without the remedies.
pub fn findings(fake: &FakeHost) -> Vec<String> {
    said(&fake.host().0, &request(&[VF]))
}

fn said(host: &Host, request: &Request) -> Vec<String> {
    let survey = Survey::new(host, request);
    survey.findings().iter().map(Finding::to_string).collect()
}

/// Everything that is shown about [`VF`].
fn shown(fake: &FakeHost) -> String {
    Survey::new(&fake.host().0, &request(&[VF])).to_string()
}

#[test]
fn host_on_which_nothing_is_missing_is_ready() {
    let fake = ready();
    let (host, kernel) = fake.host();
    let survey = Survey::new(&host, &request(&[VF]));
    assert_eq!(survey.findings(), []);
    assert_eq!(survey.verdict(), Ok(()));
    assert_eq!(survey.kinds(), [Kind::Net]);
    assert_eq!(survey.steps(), []);
    assert_eq!(
        survey.to_string(),
        "passing through 0000:3b:00.2 [1af4:1041, subsystem 8086:001a, class 020000] network for ifcvf, \
         driver vfio-pci\n"
    );
    assert_eq!(kernel.done(), [""; 0], "nothing is changed");
}

#[test]
fn nothing_is_looked_at_when_nothing_is_passed_through() {
    let fake = FakeHost::new();
    fake.remove("sys/kernel/iommu_groups");
    let (host, _) = fake.host();
    let survey = Survey::new(&host, &request(&[]));
    assert_eq!(survey.findings(), []);
    assert_eq!(survey.verdict(), Ok(()));
    assert_eq!(survey.to_string(), "");
}

#[test]
fn function_that_is_not_there_is_answered_with_those_that_are() {
    let fake = FakeHost::new();
    fake.function("0000:3b:00.0", 40, USB);
    let (host, _) = fake.host();
    let survey = Survey::new(&host, &request(&["3b:00.7"]));
    let shown = survey.to_string();
    assert_eq!(
        shown,
        "missing: there is no function 0000:3b:00.7\n    \
         functions of this host that could be passed through:\n    \
         0000:3b:00.2 [1af4:1041, subsystem 8086:001a, class 020000] network for ifcvf, driver virtio-pci\n"
    );
    assert_eq!(survey.kinds(), [Kind::Net], "what most cards are");
    assert!(survey.verdict().is_err());

    fake.interface(VF, "ens1", "0x1003");
    fake.write("proc/net/route", "ens1\t0\n");
    let (host, _) = fake.host();
    let shown = Survey::new(&host, &request(&["3b:00.7"])).to_string();
    assert!(
        shown.contains("this host has none to spare that the guest has a driver for"),
        "{shown}"
    );
}

#[test]
fn host_without_any_of_it_has_all_of_it_said() {
    let empty = tempfile::tempdir().unwrap();
    let host = Host::at(empty.path());
    assert_eq!(
        said(&host, &request(&[VF])),
        [
            "there is no function 0000:3b:00.2",
            "the IOMMU is off: /sys/kernel/iommu_groups is empty"
        ]
    );
}

#[test]
fn everything_is_said_at_once() {
    let fake = FakeHost::new();
    fake.remove("sys/bus/pci/devices/0000:3b:00.2/driver");
    fake.bind(VF, "ice");
    fake.interface(VF, "ens1", "0x1003");
    fake.write("proc/net/route", "Iface\tDestination\nens1\t00000000\n");
    fake.write("proc/interrupts", "  0:  5  IO-APIC  2-edge  timer\n");
    fake.function(OTHER, 42, USB);
    fake.bind(OTHER, "xhci_hcd");
    fake.lock_limit("65536");
    fake.write("sys/bus/pci/devices/0000:3b:00.2/sriov_numvfs", "4\n");
    let said = findings(&fake);
    assert_eq!(said.len(), 6, "{said:?}");
    let (host, _) = fake.host();
    let verdict = Survey::new(&host, &request(&[VF])).verdict().unwrap_err();
    assert_eq!(
        verdict.to_string(),
        "6 of the above must be mended before anything is passed through"
    );
}

#[test]
fn function_of_no_driver_is_warned_about() {
    let fake = FakeHost::new();
    fake.function("0000:00:14.0", 7, USB);
    fake.bind("0000:00:14.0", "vfio-pci");
    let (host, _) = fake.host();
    let survey = Survey::new(&host, &request(&["00:14.0"]));
    assert_eq!(
        survey.findings()[0].to_string(),
        "0000:00:14.0 [8086:a1af, subsystem 8086:0000, class 0c0330]: no driver of the guest takes it"
    );
    assert_eq!(
        survey.verdict(),
        Ok(()),
        "it is passed through all the same"
    );
    assert_eq!(survey.kinds(), [], "it takes nothing's place");
}

#[test]
fn bridge_stays_with_the_host() {
    let fake = FakeHost::new();
    fake.function("0000:3a:00.0", 30, BRIDGE);
    let (host, _) = fake.host();
    let said = said(&host, &request(&["3a:00.0"]));
    assert_eq!(said, ["0000:3a:00.0 is a bridge"]);
}

#[test]
fn iommu_that_is_off_is_explained_for_the_processor() {
    for (cpu, words, parts) in [
        (
            "GenuineIntel",
            "quiet",
            &["switch VT-d on", "intel_iommu=on iommu=pt"][..],
        ),
        ("GenuineIntel", "intel_iommu=on", &["asks for it already"]),
        (
            "GenuineIntel",
            "intel_iommu=sm_on,on",
            &["asks for it already"],
        ),
        ("AuthenticAMD", "", &["AMD-Vi", "iommu=pt"]),
        ("RiscyInside", "", &["an IOMMU that Linux has a driver for"]),
    ] {
        let fake = ready();
        fake.remove("sys/kernel/iommu_groups");
        fake.remove("sys/bus/pci/devices/0000:3b:00.2/iommu_group");
        fake.write("proc/cpuinfo", &format!("vendor_id\t: {cpu}\n"));
        fake.write("proc/cmdline", words);
        assert_eq!(
            findings(&fake),
            ["the IOMMU is off: /sys/kernel/iommu_groups is empty"]
        );
        for part in parts {
            assert!(
                shown(&fake).contains(part),
                "{cpu} {words}: {part}: {}",
                shown(&fake)
            );
        }
    }
}

#[test]
fn function_outside_of_every_group_is_named() {
    let fake = ready();
    fake.remove("sys/bus/pci/devices/0000:3b:00.2/iommu_group");
    assert_eq!(findings(&fake), ["0000:3b:00.2 is in no IOMMU group"]);
}

#[test]
fn group_is_free_when_nobody_else_uses_it() {
    for (ids, driver, expected) in [
        (BRIDGE, Some("pcieport"), None),
        (USB, None, None),
        (USB, Some("pci-stub"), None),
        (USB, Some("vfio-pci"), None),
        (USB, Some("mlx5_vfio_pci"), None),
        (USB, Some("xhci_hcd"), Some("xhci_hcd")),
        (IFC_NET, Some("virtio-pci"), Some("virtio-pci")),
    ] {
        let fake = ready();
        fake.function(OTHER, 42, ids);
        if let Some(driver) = driver {
            fake.bind(OTHER, driver);
        }
        let expected: Vec<String> = expected
            .into_iter()
            .map(|driver| {
                format!("IOMMU group 42 of 0000:3b:00.2 is not free: 0000:3b:00.3 is with {driver}")
            })
            .collect();
        assert_eq!(findings(&fake), expected, "{driver:?}");
    }
}

#[test]
fn every_offender_of_a_group_is_named_with_the_commands_for_it() {
    let fake = ready();
    for (address, driver) in [(OTHER, "xhci_hcd"), ("0000:3b:00.4", "nvme")] {
        fake.function(address, 42, USB);
        fake.bind(address, driver);
    }
    assert_eq!(
        findings(&fake),
        [
            "IOMMU group 42 of 0000:3b:00.2 is not free: 0000:3b:00.3 is with xhci_hcd, 0000:3b:00.4 is with nvme"
        ]
    );
    let shown = shown(&fake);
    for address in [OTHER, "0000:3b:00.4"] {
        let line =
            format!("echo {address} | sudo tee /sys/bus/pci/devices/{address}/driver/unbind");
        assert!(shown.contains(&line), "{shown}");
    }
}

#[test]
fn both_functions_of_a_group_may_be_asked_for() {
    let fake = FakeHost::new();
    fake.function(OTHER, 42, IFC_BLK);
    fake.bind(OTHER, "virtio-pci");
    let (host, _) = fake.host();
    let survey = Survey::new(&host, &binding(&[VF, OTHER]));
    assert_eq!(survey.findings(), []);
    assert_eq!(survey.kinds(), [Kind::Net, Kind::Blk]);
}

#[test]
fn function_with_another_driver_comes_with_the_commands_that_bind_it() {
    let fake = FakeHost::new();
    assert_eq!(
        shown(&fake).lines().skip(1).collect::<Vec<_>>().join("\n"),
        "missing: 0000:3b:00.2 is with virtio-pci, not with vfio-pci\n    \
         --bind does this for the time of the run; by hand:\n    \
         echo vfio-pci | sudo tee /sys/bus/pci/devices/0000:3b:00.2/driver_override\n    \
         echo 0000:3b:00.2 | sudo tee /sys/bus/pci/devices/0000:3b:00.2/driver/unbind\n    \
         echo 0000:3b:00.2 | sudo tee /sys/bus/pci/drivers_probe"
    );
    fake.remove("sys/bus/pci/drivers/vfio-pci");
    fake.remove("sys/bus/pci/devices/0000:3b:00.2/driver");
    let shown = shown(&fake);
    assert!(
        shown.contains("is with no driver, not with vfio-pci"),
        "{shown}"
    );
    assert!(shown.contains("    sudo modprobe vfio-pci\n"), "{shown}");
    assert!(!shown.contains("unbind"), "{shown}");
}

#[test]
fn driver_of_vfio_for_a_kind_of_function_will_do() {
    let fake = FakeHost::new();
    fake.remove("sys/bus/pci/devices/0000:3b:00.2/driver");
    fake.bind(VF, "virtio_vfio_pci");
    assert_eq!(findings(&fake), [""; 0]);
}

#[test]
fn device_files_must_be_there_and_ours() {
    for (file, denied, expected) in [
        ("dev/vfio/vfio", false, "/dev/vfio/vfio is not there"),
        ("dev/vfio/42", false, "/dev/vfio/42 is not there"),
        ("dev/vfio/vfio", true, "/dev/vfio/vfio is not yours to open"),
        ("dev/vfio/42", true, "/dev/vfio/42 is not yours to open"),
    ] {
        let fake = ready();
        let (host, kernel) = fake.host();
        if denied {
            kernel.deny(file);
        } else {
            fake.remove(file);
        }
        assert_eq!(said(&host, &request(&[VF])), [expected]);
        let shown = Survey::new(&host, &request(&[VF])).to_string();
        let command = match denied {
            true => format!("    sudo chown \"$USER\" /{file}\n"),
            false => "    sudo modprobe vfio-pci\n".into(),
        };
        assert!(shown.contains(&command), "{shown}");
    }
}

#[test]
fn device_files_that_come_with_the_binding_are_not_missed_before() {
    let fake = FakeHost::new();
    fake.remove("dev/vfio");
    fake.remove("sys/bus/pci/drivers/vfio-pci");
    assert_eq!(
        findings(&fake),
        ["0000:3b:00.2 is with virtio-pci, not with vfio-pci"]
    );
    assert_eq!(said(&fake.host().0, &binding(&[VF])), [""; 0]);
}

#[test]
fn binding_needs_the_right_to() {
    let fake = FakeHost::new();
    let (host, kernel) = fake.host();
    kernel.deny("sys/bus/pci/devices/0000:3b:00.2/driver_override");
    assert_eq!(
        said(&host, &binding(&[VF])),
        ["--bind may not change which driver 0000:3b:00.2 has"]
    );
}

#[test]
fn guest_and_slack_must_fit_into_the_memory_that_may_be_locked() {
    const MIB: u64 = 1 << 20;
    for (limit, enough) in [
        ((192 * MIB).to_string(), true),
        ((192 * MIB - 1).to_string(), false),
        ("8388608".into(), false),
        ("unlimited".into(), true),
    ] {
        let fake = ready();
        fake.lock_limit(&limit);
        assert_eq!(findings(&fake).is_empty(), enough, "{limit}");
    }
    let fake = ready();
    fake.lock_limit("8388608");
    assert_eq!(
        findings(&fake),
        ["8192 KiB of memory may be locked, and the guest needs 196608 KiB"]
    );
    let shown = shown(&fake);
    for command in [
        "sudo prlimit --pid $$ --memlock=201326592:201326592",
        "echo \"$USER - memlock 196608\" | sudo tee -a /etc/security/limits.conf",
    ] {
        assert!(shown.contains(command), "{shown}");
    }
    // Who may lock what he likes is not asked for limits.
    fake.write("proc/self/status", "CapEff:\t000001ffffffffff\n");
    assert_eq!(findings(&fake), [""; 0]);
}

#[test]
fn interrupts_must_be_remapped_unless_the_host_trusts_its_guests() {
    let fake = ready();
    fake.write("proc/interrupts", "  0:  5  IO-APIC  2-edge  timer\n");
    assert_eq!(
        findings(&fake),
        ["interrupts are not remapped: a guest could raise any of this host's"]
    );
    assert!(shown(&fake).contains("sudo modprobe vfio_iommu_type1 allow_unsafe_interrupts=1"));
    let parameter = "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
    fake.write(parameter, "N\n");
    assert_eq!(findings(&fake).len(), 1);
    fake.write(parameter, "Y\n");
    assert_eq!(findings(&fake), [""; 0]);
}

#[test]
fn what_is_missing_cannot_be_forced() {
    let fake = FakeHost::new();
    let (host, _) = fake.host();
    let forced = Request {
        caution: Caution::Overruled,
        ..request(&[VF])
    };
    let survey = Survey::new(&host, &forced);
    assert_eq!(survey.findings()[0].gravity(), Gravity::Missing);
    assert!(survey.verdict().is_err());
}
