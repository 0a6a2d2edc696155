//! The program as a user meets it: what it prints, what it exits with, what it leaves behind. A
//! script stands in for QEMU.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose case cannot be set up has failed"
)]

mod kernel;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kernel::kernel;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::{TempDir, tempdir};

/// A place with a kernel to name, a directory to serve and a QEMU of our own making.
struct Place {
    directory: TempDir,
}

impl Place {
    /// `script` is what QEMU does.
    fn new(script: &str) -> Self {
        let directory = tempdir().unwrap();
        let place = Self { directory };
        for name in ["bin", "site", "tmp"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        fs::write(place.path("site/index.html"), "hello").unwrap();
        fs::write(place.path("kernel"), kernel()).unwrap();
        let qemu = place.path("bin/qemu-system-x86_64");
        fs::write(&qemu, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare();
        command.arg("--kernel").arg(self.path("kernel"));
        command
            .arg("--serve")
            .arg(self.path("site"))
            .args(arguments);
        command
    }

    /// The program without arguments.
    fn bare(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qemu"));
        let path = format!(
            "{}:{}",
            self.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        command
            .env("PATH", path)
            .env("TMPDIR", self.path("tmp"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn assert_nothing_is_left(&self) {
        let left: Vec<_> = fs::read_dir(self.path("tmp")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn exit_code_of_the_guest_becomes_ours() {
    for (status, code) in [(33, 0), (35, 1), (33 + 2 * 7, 7), (235, 101)] {
        let place = Place::new(&format!("echo the console; exit {status}"));
        let output = place.run(&[]);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "the console\n");
        place.assert_nothing_is_left();
    }
}

#[test]
fn other_ends_of_qemu_are_errors_that_say_so() {
    for (script, part) in [
        ("exit 1", "QEMU failed (status 1)"),
        ("exit 0", "without an exit code"),
        ("kill -9 $$", "killed by signal 9"),
    ] {
        let place = Place::new(script);
        let output = place.run(&[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
        place.assert_nothing_is_left();
    }
}

#[test]
fn guest_is_announced_and_gets_a_copy_of_the_directory() {
    let place = Place::new("test -s $TMPDIR/ringway-*.img && exit 33");
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let site = place.path("site");
    let line = format!("serving {} at http://localhost:", site.display());
    assert!(stderr(&output).contains(&line), "{}", stderr(&output));
}

#[test]
fn signals_end_the_guest_and_remove_the_image() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let place = Place::new("echo booted; exec sleep 100");
        let mut child = place
            .command(&[])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "booted\n");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal:?}");
        place.assert_nothing_is_left();
    }
}

#[test]
fn vhost_without_an_iommu_is_said_in_one_line() {
    let place = Place::new("exit 33");
    for (arguments, expected) in [
        (&["--blk", "vhost"][..], 1),
        (&["--net", "vhost", "--blk", "vhost"], 1),
        (&[], 0),
    ] {
        let output = place.run(arguments);
        let said = stderr(&output);
        let lines = said
            .lines()
            .filter(|line| line.contains("vhost.noiommu=unsafe"));
        assert_eq!(lines.count(), expected, "{arguments:?}: {said}");
    }
}

#[test]
fn what_is_typed_reaches_the_console_of_the_guest() {
    let place = Place::new("read line; echo \"got $line\"; exit 33");
    let mut child = place
        .command(&[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"vdpa dev show\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "got vdpa dev show\n"
    );
}

#[test]
fn port_that_is_taken_is_an_error_before_anything_is_done() {
    let place = Place::new("exit 33");
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let output = place.run(&["--port", &port]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        format!("error: port {port} is in use; stop its user or choose another with --port\n")
    );
}

#[test]
fn wrong_options_are_refused_with_the_usage_code() {
    let place = Place::new("exit 33");
    for (arguments, part) in [
        (&["--memory", "lots"][..], "not a memory size"),
        (&["--port", "0"], "--port"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[test]
fn directory_that_cannot_be_stored_is_an_error_that_names_the_file() {
    let place = Place::new("exit 33");
    fs::write(place.path("site/what?"), "").unwrap();
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("what? cannot be stored"),
        "{}",
        stderr(&output)
    );
    place.assert_nothing_is_left();
}

#[test]
fn dry_run_prints_the_command_and_needs_neither_qemu_nor_root() {
    let place = Place::new("exit 33");
    fs::remove_file(place.path("bin/qemu-system-x86_64")).unwrap();
    let arguments = [
        "--dry-run",
        "--memory",
        "64M",
        "--append",
        "log=debug",
        "--",
        "-d",
        "int",
    ];
    let output = place
        .command(&arguments)
        .env("PATH", place.path("bin"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(line.starts_with("qemu-system-x86_64 "), "{line}");
    assert!(line.contains("-m 64M"), "{line}");
    assert!(
        line.ends_with("-append 'ip=dhcp log=debug' -d int\n"),
        "{line}"
    );
    assert!(
        line.contains(&format!("-kernel {}", place.path("kernel").display())),
        "{line}"
    );
    place.assert_nothing_is_left();
}

#[test]
fn dry_run_names_the_kernel_that_would_be_built() {
    for (option, folder) in [("--release", "release"), ("--debug", "debug")] {
        let arguments = ["--dry-run", option];
        let output = Command::new(env!("CARGO_BIN_EXE_qemu"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let line = String::from_utf8(output.stdout).unwrap();
        let kernel = Path::new("x86_64-unknown-none").join(folder).join("site");
        assert!(line.contains(kernel.to_str().unwrap()), "{line}");
    }
}

#[test]
fn missing_qemu_is_installed_or_explained_with_the_command() {
    let place = Place::new("exit 33");
    fs::remove_file(place.path("bin/qemu-system-x86_64")).unwrap();
    // Nothing that could install it is on this path.
    let output = place
        .command(&[])
        .env("PATH", place.path("bin"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("qemu-system-x86"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn every_input_that_makes_no_sense_gets_one_line_and_no_machine() {
    let place = Place::new("touch $TMPDIR/started; exit 33");
    let write = |name: &str, bytes: &[u8]| fs::write(place.path(name), bytes).unwrap();
    write("empty", b"");
    write("short", &[0; 1000]);
    write("text", b"not a kernel");
    let mut other = kernel();
    other[18] = 183;
    write("other", &other);
    let mut plain = kernel();
    plain[64 + 56 + 8] = 1;
    write("plain", &plain);
    write("cut", &kernel()[..100]);
    write("qcow2", b"QFI\xfb\0\0\0\x03");
    write("vmdk", b"KDMV\x01");
    fs::create_dir(place.path("loop")).unwrap();
    std::os::unix::fs::symlink(".", place.path("loop/again")).unwrap();
    std::os::unix::fs::symlink("itself", place.path("itself")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port().to_string();
    for (arguments, code, part) in [
        (&["--memory", "0"][..], 2, "less than 4 MiB"),
        (&["--memory", "1K"], 2, "not a memory size"),
        (&["--memory", "2T"], 2, "more than"),
        (&["--port", "0"], 2, "--port"),
        (&["--port", "70000"], 2, "--port"),
        (&["--port", &taken], 1, "is in use"),
        (&["--queues", "0"], 2, "--queues"),
        (&["--queues", "300"], 2, "--queues"),
        (&["--machine", "virt"], 2, "q35"),
        (&["--accel", "xen"], 2, "tcg"),
        (&["--cpu", ""], 2, "processor model"),
        (&["--cpu", "host", "--accel", "tcg"], 1, "--cpu host needs"),
        (&["--append", "a\nb"], 2, "one line"),
        (&["--net", "tap="], 2, "network interface"),
        (&["--net", "tap=0123456789abcdef"], 2, "network interface"),
        (&["--net", "tap=no-such-tap"], 1, "no such tap interface"),
        (&["--net", "none", "--port", "8080"], 1, "--port needs"),
        (&["--frobnicate"], 2, "--frobnicate"),
        (&["--bind"], 2, "--passthrough"),
        (&["--kernel", "@/missing"], 1, "No such file"),
        (&["--kernel", "@/site"], 1, "not a file"),
        (&["--kernel", "@/pipe"], 1, "not a file"),
        (&["--kernel", "@/empty"], 1, "no ELF file"),
        (&["--kernel", "@/text"], 1, "no ELF file"),
        (&["--kernel", "@/cut"], 1, "no ELF file"),
        (&["--kernel", "@/other"], 1, "x86-64"),
        (&["--kernel", "@/plain"], 1, "PVH"),
        (&["--serve", "@/missing"], 1, "No such file"),
        (&["--serve", "@/text"], 1, "not a directory"),
        (&["--serve", "@/itself"], 1, "--serve"),
        (&["--serve", "@/loop"], 1, "contains it"),
        (&["--disk", "@/missing"], 1, "No such file"),
        (&["--disk", "@/site"], 1, "directory"),
        (&["--disk", "@/pipe"], 1, "neither a file nor"),
        (&["--disk", "/dev/null"], 1, "neither a file nor"),
        (&["--disk", "@/itself"], 1, "--disk"),
        (&["--disk", "@/empty"], 1, "is empty"),
        (&["--disk", "@/short"], 1, "1000 bytes long"),
        (&["--disk", "@/vmdk"], 1, "VMDK"),
        (&["--disk", "@/qcow2"], 1, "damaged"),
        (&["--disk", "@/vmdk", "--read-only"], 1, "VMDK"),
    ] {
        let here = place.directory.path().to_str().unwrap();
        let mut usual = vec!["--kernel", "@/kernel", "--serve", "@/site"];
        if arguments[0] == "--kernel" {
            usual.drain(..2);
        } else if arguments[0] == "--serve" || arguments[0] == "--disk" {
            usual.drain(2..);
        }
        let all = usual
            .iter()
            .chain(arguments)
            .map(|word| word.replace("@", here));
        let output = place.bare().args(all).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
        // A step of work may have been told before.
        let errors = said
            .lines()
            .filter(|line| !line.starts_with("making a disk image"));
        assert_eq!(errors.count(), 1, "{arguments:?}: {said}");
        assert!(said.contains("error: "), "{arguments:?}: {said}");
        assert!(
            output.stdout.is_empty() && !place.path("tmp/started").exists(),
            "{arguments:?}"
        );
        place.assert_nothing_is_left();
    }
}
