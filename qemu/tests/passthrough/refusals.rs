//! What the host itself needs is not given away, unless somebody asks for it.

use qemu::passthrough::survey::Survey;
use qemu::passthrough::{Caution, Request};

use crate::fake::{FakeHost, USB, VF};
use crate::findings::{findings, ready, request};

#[test]
fn function_with_virtual_functions_is_refused_unless_asked_for() {
    let fake = ready();
    fake.write("sys/bus/pci/devices/0000:3b:00.2/sriov_numvfs", "4\n");
    let expected = "0000:3b:00.2 has virtual functions that go with it: 4 are switched on";
    assert_eq!(findings(&fake), [expected]);
    assert_refused_unless_forced(&fake, expected);
    fake.write("sys/bus/pci/devices/0000:3b:00.2/sriov_numvfs", "0\n");
    assert_eq!(findings(&fake), [""; 0]);
}

#[test]
fn interface_with_an_address_is_a_use() {
    let route = "Iface\tDestination\tGateway\nens1\t000010AC\t00000000\n";
    let own = "fe800000000000000000000000000001 04 40 20 80     ens1\n";
    let global = "fd000000000000000000000000000002 04 40 00 80     ens1\n";
    let up = "interface ens1 is up and has an address";
    for (flags, file, text, expected) in [
        ("0x1003", "proc/net/route", route, Some(up)),
        ("0x1002", "proc/net/route", route, None),
        ("0x1003", "proc/net/if_inet6", global, Some(up)),
        ("0x1003", "proc/net/if_inet6", own, None),
        ("0x1003", "proc/net/route", "Iface\neth0\t0\n", None),
        (
            "0x1002",
            "sys/class/net/ens1/master",
            "",
            Some("interface ens1 belongs to a bridge or bond"),
        ),
    ] {
        let fake = ready();
        fake.interface(VF, "ens1", flags);
        fake.write(file, text);
        let expected: Vec<String> = expected
            .into_iter()
            .map(|reason| format!("this host uses 0000:3b:00.2: {reason}"))
            .collect();
        assert_eq!(findings(&fake), expected, "{flags} {file} {text}");
        for message in expected {
            assert_refused_unless_forced(&fake, &message);
        }
    }
}

#[test]
fn interface_of_another_function_is_no_use_of_this_one() {
    let fake = ready();
    fake.function("0000:3b:00.20", 9, USB);
    fake.interface("0000:3b:00.20", "ens1", "0x1003");
    fake.write("proc/net/route", "ens1\t0\n");
    assert_eq!(findings(&fake), [""; 0]);
}

#[test]
fn disk_that_is_mounted_swapped_to_or_part_of_another_is_a_use() {
    for (file, text, reason) in [
        (
            "proc/self/mountinfo",
            "29 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1 rw\n",
            "nvme0n1 is mounted on /",
        ),
        (
            "proc/self/mountinfo",
            "40 1 0:35 / /home rw - btrfs /dev/nvme0n1 rw,subvol=/\n",
            "nvme0n1 is mounted on /home",
        ),
        (
            "proc/swaps",
            "Filename\tType\n/dev/nvme0n1 partition 8388604 0 -2\n",
            "nvme0n1 is swapped to",
        ),
        (
            "sys/class/block/nvme0n1/holders/dm-0",
            "",
            "nvme0n1 is part of a RAID or of device mapper",
        ),
    ] {
        let fake = ready();
        fake.disk(VF, "nvme0n1", "259:1\n");
        assert_eq!(findings(&fake), [""; 0], "a disk that lies idle");
        fake.write(file, text);
        let expected = format!("this host uses 0000:3b:00.2: {reason}");
        assert_eq!(findings(&fake), [expected.as_str()]);
        assert_refused_unless_forced(&fake, &expected);
    }
}

fn assert_refused_unless_forced(fake: &FakeHost, message: &str) {
    let (host, _) = fake.host();
    let survey = Survey::new(&host, &request(&[VF]));
    assert!(survey.verdict().is_err());
    let refused = format!("refused: {message}\n");
    assert!(survey.to_string().contains(&refused), "{survey}");
    let forced = Request {
        caution: Caution::Overruled,
        ..request(&[VF])
    };
    let survey = Survey::new(&host, &forced);
    assert_eq!(survey.verdict(), Ok(()));
    let warned = format!("warning: {message}\n");
    assert!(survey.to_string().contains(&warned), "{survey}");
}
