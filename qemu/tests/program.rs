//! The program as a user meets it: what it prints, what it exits with, what it leaves behind. A script
//! stands in for QEMU.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose case cannot be set up has failed"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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
        fs::write(place.path("kernel"), "").unwrap();
        let qemu = place.path("bin/qemu-system-x86_64");
        fs::write(&qemu, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
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
        command.arg("--kernel").arg(self.path("kernel"));
        command
            .arg("--serve")
            .arg(self.path("site"))
            .args(arguments);
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
