//! Functions are bound for the time of a run, and as before afterwards, whatever happens in
//! between.

use std::process::Command;
use std::thread;
use std::time::Duration;

use qemu::interrupt::Interrupt;
use qemu::passthrough::binding::BindError;
use qemu::passthrough::survey::Survey;
use rustix::process::{Signal, getpid, kill_process};

use crate::fake::{FakeHost, IFC_BLK, IFC_NET, Ids, OTHER, USB, VF};
use crate::findings::binding;

/// The writes that bind [`VF`].
const BOUND: [&str; 3] = [
    "vfio-pci > sys/bus/pci/devices/0000:3b:00.2/driver_override",
    "0000:3b:00.2 > sys/bus/pci/devices/0000:3b:00.2/driver/unbind",
    "0000:3b:00.2 > sys/bus/pci/drivers_probe",
];

/// The writes that give it back.
const GIVEN_BACK: [&str; 3] = [
    " > sys/bus/pci/devices/0000:3b:00.2/driver_override",
    "0000:3b:00.2 > sys/bus/pci/devices/0000:3b:00.2/driver/unbind",
    "0000:3b:00.2 > sys/bus/pci/drivers/virtio-pci/bind",
];

#[test]
fn function_is_with_vfio_for_the_time_of_a_run() {
    let fake = FakeHost::new();
    let (host, kernel) = fake.host();
    let survey = Survey::new(&host, &binding(&[VF]));
    let bound = survey.bind(&Interrupt::default()).unwrap();
    assert_eq!(kernel.done(), BOUND);
    assert_eq!(fake.driver_of(VF).as_deref(), Some("vfio-pci"));
    assert_eq!(survey.again().verdict(), Ok(()));
    drop(bound);
    assert_eq!(kernel.done()[3..], GIVEN_BACK);
    assert_eq!(
        kernel.told(),
        [
            "binding 0000:3b:00.2 to vfio-pci (driver virtio-pci)",
            "0000:3b:00.2 is as before (driver virtio-pci)",
        ]
    );
    assert_as_before(&fake);
}

#[test]
fn steps_that_are_announced_are_those_that_are_taken() {
    let fake = FakeHost::new();
    fake.remove("sys/bus/pci/drivers/vfio-pci");
    let (host, kernel) = fake.host();
    let survey = Survey::new(&host, &binding(&[VF]));
    let steps: Vec<String> = survey.steps().iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "sudo modprobe vfio-pci",
            "echo vfio-pci | sudo tee /sys/bus/pci/devices/0000:3b:00.2/driver_override",
            "echo 0000:3b:00.2 | sudo tee /sys/bus/pci/devices/0000:3b:00.2/driver/unbind",
            "echo 0000:3b:00.2 | sudo tee /sys/bus/pci/drivers_probe",
        ]
    );
    assert_eq!(kernel.done(), [""; 0]);
    let _bound = survey.bind(&Interrupt::default()).unwrap();
    assert_eq!(kernel.done()[0], "load vfio-pci");
    assert_eq!(kernel.done()[1..], BOUND);
}

#[test]
fn function_that_is_bound_already_stays_so() {
    let fake = FakeHost::new();
    fake.remove("sys/bus/pci/devices/0000:3b:00.2/driver");
    fake.bind(VF, "vfio-pci");
    let (host, kernel) = fake.host();
    drop(
        Survey::new(&host, &binding(&[VF]))
            .bind(&Interrupt::default())
            .unwrap(),
    );
    assert_eq!(kernel.done(), [""; 0]);
}

#[test]
fn function_without_a_driver_has_none_afterwards() {
    let fake = FakeHost::new();
    fake.remove("sys/bus/pci/devices/0000:3b:00.2/driver");
    let (host, _) = fake.host();
    let bound = Survey::new(&host, &binding(&[VF]))
        .bind(&Interrupt::default())
        .unwrap();
    assert_eq!(fake.driver_of(VF).as_deref(), Some("vfio-pci"));
    drop(bound);
    assert_eq!(fake.driver_of(VF), None);
    assert_eq!(fake.preferred(VF), "(null)");
}

#[test]
fn preference_of_somebody_else_is_restored() {
    let fake = FakeHost::new();
    fake.driver("ice");
    fake.remove("sys/bus/pci/devices/0000:3b:00.2/driver");
    fake.bind(VF, "ice");
    fake.write("sys/bus/pci/devices/0000:3b:00.2/driver_override", "ice\n");
    let (host, _) = fake.host();
    drop(
        Survey::new(&host, &binding(&[VF]))
            .bind(&Interrupt::default())
            .unwrap(),
    );
    assert_eq!(fake.preferred(VF), "ice");
    assert_eq!(fake.driver_of(VF).as_deref(), Some("ice"));
}

#[test]
fn failure_at_any_step_leaves_everything_as_before() {
    let fake = FakeHost::new();
    fake.function(OTHER, 43, IFC_BLK);
    fake.bind(OTHER, "virtio-pci");
    let (host, kernel) = fake.host();
    let survey = Survey::new(&host, &binding(&[VF, OTHER]));
    for failing in 0..6 {
        kernel.fail_at(Some(failing));
        let error = survey.bind(&Interrupt::default()).unwrap_err();
        assert!(
            matches!(error, BindError::Step { .. }),
            "{failing}: {error}"
        );
        assert_as_before(&fake);
    }
    kernel.fail_at(Some(1));
    let error = survey.bind(&Interrupt::default()).unwrap_err().to_string();
    let command = "echo 0000:3b:00.2 | sudo tee /sys/bus/pci/devices/0000:3b:00.2/driver/unbind: ";
    assert!(error.starts_with(command), "{error}");
    kernel.fail_at(None);
    drop(survey.bind(&Interrupt::default()).unwrap());
    assert_as_before(&fake);
}

#[test]
fn function_that_vfio_does_not_take_goes_back() {
    let fake = FakeHost::new();
    let (host, kernel) = fake.host();
    kernel.take_nothing();
    let survey = Survey::new(&host, &binding(&[VF]));
    let error = survey.bind(&Interrupt::default()).unwrap_err().to_string();
    assert!(
        error.contains("vfio-pci does not take 0000:3b:00.2"),
        "{error}"
    );
    assert_as_before(&fake);
}

#[test]
fn function_that_has_gone_in_the_meantime_is_no_fault_of_the_others() {
    let fake = FakeHost::new();
    fake.function(OTHER, 43, IFC_BLK);
    let (host, _) = fake.host();
    let survey = Survey::new(&host, &binding(&[VF, OTHER]));
    fake.remove("sys/bus/pci/devices/0000:3b:00.3");
    let error = survey.bind(&Interrupt::default()).unwrap_err().to_string();
    assert_eq!(error, "0000:3b:00.3 has gone");
    assert_as_before(&fake);
}

#[test]
fn function_that_is_pulled_out_while_it_is_bound_is_given_back_to_nobody() {
    let fake = FakeHost::new();
    let (host, kernel) = fake.host();
    let bound = Survey::new(&host, &binding(&[VF]))
        .bind(&Interrupt::default())
        .unwrap();
    fake.remove("sys/bus/pci/devices/0000:3b:00.2");
    drop(bound);
    assert_eq!(kernel.done(), BOUND);
}

#[test]
fn idle_neighbours_of_a_group_go_with_it_and_come_back() {
    let fake = FakeHost::new();
    fake.function(OTHER, 42, IFC_NET);
    fake.bind(OTHER, "virtio-pci");
    let (host, _) = fake.host();
    let survey = Survey::new(&host, &binding(&[VF]));
    assert_eq!(survey.findings(), []);
    let bound = survey.bind(&Interrupt::default()).unwrap();
    for address in [VF, OTHER] {
        assert_eq!(fake.driver_of(address).as_deref(), Some("vfio-pci"));
    }
    drop(bound);
    for address in [VF, OTHER] {
        assert_eq!(fake.driver_of(address).as_deref(), Some("virtio-pci"));
    }
}

#[test]
fn neighbours_that_may_be_in_use_stay_where_they_are() {
    type Change = fn(&FakeHost);
    let idle = |_: &FakeHost| {};
    let with_address = |fake: &FakeHost| {
        fake.interface(OTHER, "ens1", "0x1003");
        fake.write("proc/net/route", "ens1\t0\n");
    };
    let physical = |fake: &FakeHost| {
        fake.write("sys/bus/pci/devices/0000:3b:00.3/sriov_numvfs", "1\n");
    };
    let cases: [(Ids, Change, usize); 4] = [
        (IFC_NET, idle, 0),
        (IFC_NET, with_address, 1),
        (IFC_NET, physical, 1),
        (USB, idle, 1),
    ];
    for (ids, change, expected) in cases {
        let fake = FakeHost::new();
        fake.function(OTHER, 42, ids);
        fake.bind(OTHER, "some_driver");
        change(&fake);
        let (host, _) = fake.host();
        let survey = Survey::new(&host, &binding(&[VF]));
        assert_eq!(survey.findings().len(), expected, "{survey}");
    }
}

#[test]
fn interrupt_ends_what_runs_and_gives_everything_back() {
    // The handler of signals belongs to the whole process, so no other test here installs one.
    let interrupt = Interrupt::install().unwrap();
    let fake = FakeHost::new();
    let (host, _) = fake.host();
    let survey = Survey::new(&host, &binding(&[VF]));
    {
        let _bound = survey.bind(&interrupt).unwrap();
        assert_eq!(fake.driver_of(VF).as_deref(), Some("vfio-pci"));
        let emulator = Command::new("sleep").arg("100").spawn().unwrap();
        thread::spawn(|| {
            thread::sleep(Duration::from_millis(50));
            kill_process(getpid(), Signal::INT).unwrap();
        });
        assert!(!interrupt.watch(emulator).unwrap().success());
    }
    assert_as_before(&fake);
    let error = survey.bind(&interrupt).unwrap_err();
    assert!(matches!(error, BindError::Interrupted), "{error}");
    assert_as_before(&fake);
}

fn assert_as_before(fake: &FakeHost) {
    assert_eq!(fake.driver_of(VF).as_deref(), Some("virtio-pci"));
    assert_eq!(fake.preferred(VF), "(null)");
}
