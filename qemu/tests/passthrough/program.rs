//! The program with functions to pass through, as a user meets it. A script stands in for QEMU, and
//! a thread for the kernel behind sysfs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::fake::{FakeHost, IFC_BLK, OTHER, USB, VF, driver_of, react};
use crate::kernel::kernel;

/// A host, and a QEMU of our own making on the path.
struct Place {
    fake: FakeHost,
}

impl Place {
    fn new(script: &str) -> Self {
        let fake = FakeHost::new();
        fs::write(fake.path("kernel"), kernel()).unwrap();
        fake.write("site/index.html", "hello");
        fake.folder("tmp");
        let script = format!("#!/bin/sh\n{script}\n");
        fake.write("bin/qemu-system-x86_64", &script);
        let qemu = fake.path("bin/qemu-system-x86_64");
        fs::set_permissions(qemu, fs::Permissions::from_mode(0o755)).unwrap();
        Self { fake }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qemu"));
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", self.fake.path("bin").display());
        command
            .env("PATH", path)
            .env("TMPDIR", self.fake.path("tmp"))
            .arg("--kernel")
            .arg(self.fake.path("kernel"))
            .arg("--host-root")
            .arg(self.fake.path(""))
            .args(["--accel", "tcg"])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }

    fn assert_as_before(&self, said: &str) {
        assert_eq!(
            self.fake.driver_of(VF).as_deref(),
            Some("virtio-pci"),
            "{said}"
        );
        assert_eq!(self.fake.preferred(VF), "(null)", "{said}");
        let left = fs::read_dir(self.fake.path("tmp")).unwrap().count();
        assert_eq!(left, 0, "a copy of the site is left");
    }
}

/// Reacts to what is written to the attributes of a host, until it is dropped.
struct Player {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Player {
    fn new(fake: &FakeHost) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let root = fake.path("");
        let is_over = Arc::clone(&over);
        let drivers = ["vfio-pci", "virtio-pci"].map(|name| format!("sys/bus/pci/drivers/{name}"));
        let unbinding = drivers.clone().map(|driver| format!("{driver}/unbind"));
        let [first, second] = drivers.map(|driver| format!("{driver}/bind"));
        let binding = [first, second, "sys/bus/pci/drivers_probe".into()];
        let thread = thread::spawn(move || {
            let taken = |attribute: &String| {
                let address = fs::read_to_string(root.join(attribute)).unwrap();
                let address = address.strip_suffix('\n')?.to_string();
                fs::write(root.join(attribute), "").unwrap();
                Some((attribute.clone(), address))
            };
            while !is_over.load(Ordering::SeqCst) {
                // Who binds has unbound before, so that is looked at later and done first.
                let to_bind: Vec<_> = binding.iter().filter_map(taken).collect();
                let to_unbind: Vec<_> = unbinding.iter().filter_map(taken).collect();
                for (attribute, address) in to_unbind.into_iter().chain(to_bind) {
                    react(&root, &attribute, &address);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && !thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

#[test]
fn bound_function_reaches_the_guest_and_goes_back_at_its_end() {
    for (status, code) in [(33, 0), (35, 1), (1, 1)] {
        let place = Place::new(&format!("echo \"$@\"; exit {status}"));
        let player = Player::new(&place.fake);
        let (ended, stdout, said) = place.run(&["--passthrough", "3b:00.2", "--bind"]);
        drop(player);
        assert_eq!(ended, Some(code), "{said}");
        assert!(
            stdout.contains("-device vfio-pci,host=0000:3b:00.2,romfile="),
            "{stdout}"
        );
        assert!(!stdout.contains("-netdev"), "{stdout}");
        assert!(stdout.contains("virtio-blk-pci"), "{stdout}");
        for line in [
            "passing through 0000:3b:00.2 [1af4:1041, subsystem 8086:001a, class 020000] network for ifcvf",
            "binding 0000:3b:00.2 to vfio-pci (driver virtio-pci)",
            "takes the place of the user network",
            "net0: ADDRESS by DHCP",
            "0000:3b:00.2 is as before (driver virtio-pci)",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
        place.assert_as_before(&said);
    }
}

#[test]
fn function_is_with_vfio_while_the_guest_runs() {
    let driver = "sys/bus/pci/devices/0000:3b:00.2/driver";
    let place = Place::new("basename $(readlink $LINK); exit 33");
    let player = Player::new(&place.fake);
    let output = place
        .command(&["--passthrough", VF, "--bind"])
        .env("LINK", place.fake.path(driver))
        .output()
        .unwrap();
    drop(player);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "vfio-pci\n");
}

#[test]
fn signals_end_the_guest_and_give_the_function_back() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let place = Place::new("echo booted; exec sleep 100");
        let player = Player::new(&place.fake);
        let mut child = place
            .command(&["--passthrough", VF, "--bind"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "booted\n");
        assert_eq!(
            driver_of(&place.fake.path(""), VF).as_deref(),
            Some("vfio-pci")
        );
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal:?}");
        drop(player);
        place.assert_as_before("");
    }
}

#[test]
fn functions_go_back_when_nobody_listens_any_more() {
    let place = Place::new("echo booted; while [ ! -e $OVER ]; do sleep 0.01; done; exit 33");
    place.fake.function(OTHER, 43, IFC_BLK);
    place.fake.bind(OTHER, "virtio-pci");
    let player = Player::new(&place.fake);
    let mut child = place
        .command(&["--passthrough", VF, "--passthrough", OTHER, "--bind"])
        .env("OVER", place.fake.path("over"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "booted\n");
    drop(child.stderr.take());
    place.fake.write("over", "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(player);
    assert_eq!(place.fake.driver_of(OTHER).as_deref(), Some("virtio-pci"));
    place.assert_as_before("");
}

#[test]
fn group_that_cannot_be_opened_after_all_is_an_error_and_given_back() {
    let place = Place::new("echo started; exit 33");
    place.fake.remove("dev/vfio/42");
    let player = Player::new(&place.fake);
    let (code, stdout, said) = place.run(&["--passthrough", VF, "--bind"]);
    drop(player);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(stdout, "");
    assert!(
        said.contains("missing: /dev/vfio/42 is not there\n"),
        "{said}"
    );
    place.assert_as_before(&said);
}

#[test]
fn function_that_cannot_be_given_back_is_left_with_the_commands_that_do_it() {
    let place = Place::new("rm -r $DRIVER; exit 33");
    let player = Player::new(&place.fake);
    let driver = place.fake.path("sys/bus/pci/drivers/virtio-pci/bind");
    let output = place
        .command(&["--passthrough", VF, "--bind"])
        .env("DRIVER", &driver)
        .output();
    // The thread reads an attribute that has gone, and ends.
    std::mem::forget(player);
    let output = output.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "the guest has ended well: {said}"
    );
    for line in [
        "0000:3b:00.2 could not be given back: echo 0000:3b:00.2 | sudo tee /sys/bus/pci/drivers/virtio-pci/bind: ",
        "    echo | sudo tee /sys/bus/pci/devices/0000:3b:00.2/driver_override\n",
        "    echo 0000:3b:00.2 | sudo tee /sys/bus/pci/drivers/virtio-pci/bind\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn what_is_missing_ends_the_program_before_anything_is_done() {
    let place = Place::new("echo started; exit 33");
    place.fake.function(OTHER, 42, USB);
    place.fake.bind(OTHER, "xhci_hcd");
    let (code, stdout, said) = place.run(&["--passthrough", VF]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(stdout, "");
    for line in [
        "missing: 0000:3b:00.2 is with virtio-pci, not with vfio-pci\n",
        "missing: IOMMU group 42 of 0000:3b:00.2 is not free: 0000:3b:00.3 is with xhci_hcd\n",
        "error: 2 of the above must be mended before anything is passed through\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    place.assert_as_before(&said);
}

#[test]
fn dry_run_shows_everything_changes_nothing_and_is_content() {
    let place = Place::new("exit 33");
    place.fake.lock_limit("65536");
    let (code, stdout, said) = place.run(&["--passthrough", VF, "--bind", "--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(stdout.starts_with("qemu-system-x86_64 "), "{stdout}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    assert!(
        stdout.contains("-device 'vfio-pci,host=0000:3b:00.2,romfile=' "),
        "{stdout}"
    );
    for line in [
        "missing: 64 KiB of memory may be locked",
        "without --dry-run it would end here, with code 1: 1 of the above must be mended",
        "--bind would do this, and undo it at the end:\n    \
         echo vfio-pci | sudo tee /sys/bus/pci/devices/0000:3b:00.2/driver_override\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    place.assert_as_before(&said);
    assert_eq!(place.fake.text("sys/bus/pci/drivers_probe"), "");
}

#[test]
fn dry_run_works_where_there_is_nothing_at_all() {
    let place = Place::new("exit 33");
    for folder in ["sys", "proc", "dev", "bin"] {
        place.fake.remove(folder);
    }
    let (code, stdout, said) = place.run(&["--passthrough", VF, "--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        stdout.contains("-device 'vfio-pci,host=0000:3b:00.2,romfile='"),
        "{stdout}"
    );
    for line in ["there is no function 0000:3b:00.2", "the IOMMU is off"] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn disk_takes_the_place_of_a_disk() {
    let place = Place::new("echo \"$@\"; exit 33");
    place.fake.function(OTHER, 43, IFC_BLK);
    place.fake.bind(OTHER, "vfio-pci");
    let (code, stdout, said) = place.run(&["--passthrough", OTHER]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!stdout.contains("virtio-blk"), "{stdout}");
    assert!(stdout.contains("-netdev user"), "{stdout}");
    assert!(
        said.contains("takes the place of a copy of a directory"),
        "{said}"
    );
    assert!(
        said.contains("serving the disk that is passed through at http://localhost:"),
        "{said}"
    );
    let site = place.fake.path("site");
    let (_, stdout, _) = place.run(&["--passthrough", OTHER, "--serve", site.to_str().unwrap()]);
    assert!(stdout.contains("virtio-blk-pci"), "{stdout}");
}

#[test]
fn wrong_addresses_and_combinations_are_refused() {
    let place = Place::new("exit 33");
    for (arguments, code, part) in [
        (
            &["--passthrough", "eth0"][..],
            2,
            "not the address of a PCI function: write 0000:3b:00.2",
        ),
        (
            &["--passthrough", "3b:00.8"],
            2,
            "not the address of a PCI function",
        ),
        (&["--bind"], 2, "--passthrough"),
        (
            &["--passthrough", VF, "--passthrough", VF],
            1,
            "is there twice",
        ),
        (
            &["--passthrough", VF, "--bind", "--port", "8080"],
            1,
            "--port needs --net user, whose place",
        ),
    ] {
        let (ended, _, said) = place.run(arguments);
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains(part), "{said}");
        place.assert_as_before(&said);
    }
}
