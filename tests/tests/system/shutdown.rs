//! What is left of a program's devices when it has ended: nothing runs any more. Judged by QEMU's
//! trace of what the guest writes into the status of each device (VIRTIO 1.2, 2.1).

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use qemu::build::Profile;
use qemu::device::{Disk, Net, NetBackend};
use qemu::guest::Guest;
use tests::kernels;
use tests::run::boot;
use tests::transcript::End;

system_tests![every_device_is_reset_before_the_machine_ends,];

/// All bits of a device that works: ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK.
const RUNNING: u32 = 15;

fn every_device_is_reset_before_the_machine_ends() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let image = directory.path().join("image");
    fs::write(&image, [0; 1 << 20]).unwrap();
    let mut guest = Guest::new(kernels::build("hello", Profile::Test).unwrap());
    guest.nets.push(Net::new(NetBackend::User {
        forwards: Vec::new(),
    }));
    guest.disks.push(Disk::new(image));
    guest.extra.extend([
        "-trace".into(),
        "virtio_set_status".into(),
        "-D".into(),
        trace.clone().into(),
    ]);
    let run = boot(&guest, Duration::from_secs(60)).unwrap();
    assert_eq!(run.end, End::Code(0), "{:#?}", run.console);

    // virtio_set_status vdev 0x55d1c2b6d2a0 val 15
    let trace = fs::read_to_string(trace).unwrap();
    let mut devices = BTreeMap::<&str, Vec<u32>>::new();
    for line in trace
        .lines()
        .filter(|line| line.contains("virtio_set_status "))
    {
        let words: Vec<_> = line.split_whitespace().collect();
        let [.., "vdev", device, "val", status] = *words else {
            panic!("QEMU traces otherwise: {line}");
        };
        devices
            .entry(device)
            .or_default()
            .push(status.parse().unwrap());
    }
    assert_eq!(devices.len(), 2, "a card and a disk:\n{trace}");
    for statuses in devices.values() {
        assert!(statuses.contains(&RUNNING), "it never ran:\n{trace}");
        assert_eq!(statuses.last(), Some(&0), "it still runs:\n{trace}");
    }
}
