//! `bench` as a user meets it: the table, the JSON, and what happens when figures are missing. A
//! script stands in for QEMU.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose case cannot be set up has failed"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::{TempDir, tempdir};

/// What a guest says that measures one row, fast or with a clock of instructions.
const GOOD: &str = r#"
case "$*" in
*icount*) round="100 operations, 250000 ns, 250000 ticks, 0 halts" ;;
*) round="1000 operations, 2500000 ns, 1 ticks, 7 halts" ;;
esac
echo "[    0.100000] bench: 1 rows"
echo "[    0.200000] bench sim-blk/vhost/read/1: $round"
echo "[    0.300000] end of bench"
exit 33"#;

/// A kernel to name and a QEMU of our own making.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new(script: &str) -> Self {
        let directory = tempdir().unwrap();
        let place = Self { directory };
        fs::create_dir(place.path("bin")).unwrap();
        fs::write(place.path("kernel"), "").unwrap();
        let qemu = place.path("bin/qemu-system-x86_64");
        fs::write(&qemu, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Measures the row that the script knows.
    fn bench(&self, arguments: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap();
        Command::new(env!("CARGO_BIN_EXE_qemu"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .stdin(Stdio::null())
            .args(["bench", "sim-blk/vhost/read/1", "--kernel"])
            .arg(self.path("kernel"))
            .args(arguments)
            .output()
            .unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn figures_of_both_boots_stand_beside_those_of_linux() {
    let output = Place::new(GOOD).bench(&[]);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let row = table.lines().nth(1).unwrap();
    let cells: Vec<&str> = row.split("  ").map(str::trim).collect();
    let cells: Vec<&str> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
    assert_eq!(
        cells,
        [
            "sim-blk/vhost/read/1",
            "400 000",
            "400 000",
            "400 000",
            "2 500",
            "2 500",
            "30 373",
            "13.2",
            "18 700",
            "0.13"
        ]
    );
    assert!(table.contains("Linux 6.12 guest on QEMU 7.2, other run"));
}

#[test]
fn json_goes_to_a_file_or_to_the_output() {
    let place = Place::new(GOOD);
    let file = place.path("figures.json");
    let printed = place.bench(&["--json", "-"]);
    let written = place.bench(&["--json", file.to_str().unwrap()]);
    assert!(written.status.success());
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(printed, written);
    let row = &printed["rows"][0];
    assert_eq!(row["name"], "sim-blk/vhost/read/1");
    assert_eq!(row["per_second"]["median"], 400_000.0);
    assert_eq!(row["instructions"], 2_500.0);
    assert_eq!(row["peer"]["instructions"], 18_700.0);
}

#[test]
fn instructions_of_work_that_idled_are_left_out() {
    let idle = GOOD.replace("250000 ticks, 0 halts", "250000 ticks, 3 halts");
    let output = Place::new(&idle).bench(&["--json", "-"]);
    assert!(output.status.success());
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(figures["rows"][0]["instructions"], serde_json::Value::Null);
    assert_eq!(figures["rows"][0]["idled"], true);
}

#[test]
fn missing_row_is_an_error() {
    let without_row = GOOD.replace("bench sim-blk", "bunch sim-blk");
    let output = Place::new(&without_row).bench(&[]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.contains("sim-blk/vhost/read/1 is missing"),
        "{message}"
    );
}

#[test]
fn failed_row_and_a_machine_that_resets_are_errors() {
    let failed = GOOD.replace("read/1: $round", "read/1 FAILED: no memory");
    let output = Place::new(&failed.replace("exit 33", "exit 35")).bench(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no memory"));
    let output = Place::new(&GOOD.replace("exit 33", "exit 0")).bench(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("without an exit code"));
}

#[test]
fn unknown_word_is_answered_with_the_names_of_the_rows() {
    let output = Place::new(GOOD).bench(&["floppy"]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.contains("iotlb/translate/100000"), "{message}");
}
