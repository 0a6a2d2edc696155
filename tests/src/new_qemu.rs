//! A QEMU that is new enough for devices in other processes (`vfio-user-pci`, from 10.1 on): the
//! machine's own, one that the user names, or Debian's from its packages, which run from a folder
//! and change nothing else.
//!
//! Source: QEMU, docs/system/devices/vfio-user.rst.

use std::env;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use qemu::guest::QEMU;
use tempfile::TempDir;
use thiserror::Error;

use crate::linux_guest::Missing;
use crate::linux_guest::apt::Release;
use crate::linux_guest::debian::{extract, settle};

/// The variable of the environment that names the program to use.
pub const VARIABLE: &str = "RINGWAY_QEMU";

/// The device that an older QEMU lacks.
const DEVICE: &str = "vfio-user-pci";

/// The package, and the parts of Debian where it and what it needs are.
const PACKAGE: &str = "qemu-system-x86";
const RELEASE: &str = "trixie";
const BACKPORTS: &str = "trixie-backports";

/// What of the unpacked packages is needed to run QEMU; the rest is a tenth of them.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// Why there is no such QEMU; a test without it is skipped.
#[derive(Debug, Error)]
pub enum TooOld {
    /// The user has named one that is not new enough, or no QEMU.
    #[error("{VARIABLE} is {0:?}, which is no QEMU of 10.1 or newer (it has no device {DEVICE})")]
    Named(OsString),
    /// The machine's is too old or missing, and no other can be had.
    #[error("needs QEMU 10.1 or newer (Debian: {BACKPORTS}; set {VARIABLE}): {0}")]
    Unavailable(#[from] Missing),
    /// Debian's does not run here.
    #[error("needs QEMU 10.1 or newer (set {VARIABLE}): Debian's does not run here")]
    DoesNotRun,
}

/// The program to run. Debian's packages are kept in `cache`, 170 MB unpacked.
///
/// # Errors
///
/// [`TooOld`].
pub fn find(cache: &Path) -> Result<PathBuf, TooOld> {
    if let Some(named) = env::var_os(VARIABLE) {
        let program = PathBuf::from(&named);
        return is_new(&program)
            .then_some(program)
            .ok_or(TooOld::Named(named));
    }
    let own = PathBuf::from(QEMU);
    if is_new(&own) {
        return Ok(own);
    }
    let program = cache.join(QEMU);
    if !program.is_file() {
        fetch(cache)?;
    }
    is_new(&program)
        .then_some(program)
        .ok_or(TooOld::DoesNotRun)
}

/// Whether `program` is a QEMU that has the device.
fn is_new(program: &Path) -> bool {
    let mut question = Command::new(program);
    let device = format!("{DEVICE},help");
    question.args(["-device", &device]).stdin(Stdio::null());
    question.output().is_ok_and(|answer| has_device(&answer))
}

/// Whether QEMU has said what options the device has. It does not fail if there is none.
fn has_device(answer: &Output) -> bool {
    let text = String::from_utf8_lossy(&answer.stdout);
    text.contains(&format!("{DEVICE} options"))
}

/// Puts Debian's QEMU with all that it needs into the folder `place`, all of it or nothing.
fn fetch(place: &Path) -> Result<(), Missing> {
    let parent = place.parent().unwrap_or(place);
    fs::create_dir_all(parent)?;
    let work = TempDir::new_in(parent)?;
    let archives = download(work.path())?;
    let tree = work.path().join("tree");
    for archive in archives {
        extract(&archive, &tree, PACKAGE)?;
    }
    for needless in ["etc", "var", "usr/share/doc", "usr/share/locale"] {
        // They take room, and nothing else.
        let _ = fs::remove_dir_all(tree.join(needless));
    }
    let program = tree.join(QEMU);
    fs::write(&program, script(place))?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    settle(&tree, place)
}

/// Downloads the package and all that it needs.
fn download(folder: &Path) -> Result<Vec<PathBuf>, Missing> {
    let release = Release::fetch(folder, &[RELEASE, BACKPORTS], PACKAGE)?;
    let install = ["-y", "--no-install-recommends", "--download-only", "-t"];
    let install = [&install[..], &[BACKPORTS, "install", PACKAGE]].concat();
    release.apt("apt-get", &install, PACKAGE)?;
    Ok(release.packages()?)
}

/// Runs the QEMU in the folder `place` with the libraries that came with it. Not in a file system
/// of its own: it finds sockets, kernels and disks of the host.
fn script(place: &Path) -> String {
    let place = fs::canonicalize(place.parent().unwrap_or(place))
        .map(|parent| parent.join(place.file_name().unwrap_or_default()))
        .unwrap_or_else(|_| place.into());
    let quoted = |path: &str| format!("'{}'", place.join(path).display());
    let libraries = quoted(LIBRARIES);
    let loader = quoted("usr/lib64/ld-linux-x86-64.so.2");
    let program = quoted("usr/bin/qemu-system-x86_64");
    let [firmware, bios] = FIRMWARE.map(quoted);
    format!(
        "#!/bin/sh\nQEMU_MODULE_DIR={libraries}/qemu exec {loader} --library-path {libraries} {program} \
         -L {firmware} -L {bios} \"$@\"\n"
    )
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn script_stays_in_its_folder() {
        let parent = tempfile::tempdir().unwrap();
        let place = parent.path().join("new qemu");
        let script = script(&place);
        let root = fs::canonicalize(parent.path()).unwrap();
        let root = root.join("new qemu");
        assert!(script.starts_with("#!/bin/sh\n"));
        assert_eq!(
            script.matches(&format!("'{}/usr/", root.display())).count(),
            6
        );
    }

    #[test]
    fn what_does_not_have_the_device_is_too_old() {
        let said = |text: &str| Output {
            status: ExitStatus::default(),
            stdout: text.into(),
            stderr: Vec::new(),
        };
        assert!(has_device(&said(
            "vfio-user-pci options:\n  acpi-index=<uint32>"
        )));
        assert!(!has_device(&said("Device 'vfio-user-pci' not found\n")));
        assert!(!is_new(Path::new("/bin/true")));
        assert!(!is_new(Path::new("/no/such/program")));
    }
}
