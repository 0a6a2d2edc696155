//! A disk that our daemon serves through `/dev/vduse` of a Linux that nobody here wrote.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::{Completion, Failed, Trial};
use qemu::guest::Guest;
use qemu::machine::Memory;
use sha2::{Digest, Sha256};
use tests::linux_guest::{Debian, Initramfs, Missing, Tools};
use tests::run::boot;
use tests::{noise, programs, requirement};

/// A guest that has not ended by then hangs. A busy host of two cores needs a tenth of it.
const PATIENCE: Duration = Duration::from_secs(240);

/// The first Debian whose kernel has VDUSE.
const SUITE: &str = "trixie";

const MODULES: [&str; 4] = ["virtio_blk", "vduse", "virtio_vdpa", "vhost_vdpa"];

/// What the script works with, and the packages that have it.
const PROGRAMS: [&str; 3] = ["vdpa", "mke2fs", "e2fsck"];
const PACKAGES: [&str; 4] = ["iproute2", "e2fsprogs", "strace", "qemu-utils"];

const SCRIPT: &str = include_str!("../../src/linux_guest/vduse.sh");

/// What is written to each file.
const PATTERN_BYTES: usize = 4 << 20;

pub fn trials() -> Vec<Trial> {
    vec![Trial::ignorable_test(
        "vduse_linux::disk_of_a_daemon_outlives_it",
        || disk_of_a_daemon().map_err(|error| Failed::from(format!("{error:#}"))),
    )]
}

fn disk_of_a_daemon() -> Result<Completion> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
    let daemon = programs::build("vduse-blk").map_err(|error| anyhow!("{error}"))?;
    let (kernel, files) = match files(&cache, &daemon) {
        Ok(made) => made,
        Err(missing) => return Ok(requirement::skip(missing).map(Completion::ignored_with)?),
    };
    let pattern = noise::bytes(61, PATTERN_BYTES);
    let files = files.with("pattern", &pattern);
    let folder = tempfile::tempdir()?;
    let initramfs = folder.path().join("initramfs");
    files.write(File::create(&initramfs)?)?;
    let mut guest = Guest {
        append: "console=ttyS0 quiet panic=-1 no_timer_check".into(),
        memory: Memory::from_mib(512)?,
        ..Guest::new(kernel)
    };
    guest.extra.extend(["-initrd".into(), initramfs.into()]);
    guest.extra.extend(["-smp", "cpus=2"].map(Into::into));

    let run = boot(&guest, PATIENCE)?;

    let console = run.console.join("\n");
    judge(&run.console, &pattern).with_context(|| console)?;
    Ok(Completion::Completed)
}

/// The kernel; and busybox, the script, and the programs that it runs.
fn files(cache: &Path, daemon: &Path) -> Result<(PathBuf, Initramfs), Missing> {
    let debian = Debian::with_kernel_of(SUITE, cache)?;
    let tools = Tools::ensure(SUITE, &PACKAGES, cache)?;
    let files = Initramfs::new(&debian, &MODULES, SCRIPT)?;
    let daemon = daemon.to_string_lossy();
    let files = tools.add_to(files, &[&PROGRAMS[..], &[&daemon]].concat())?;
    Ok((debian.kernel()?, files))
}

fn judge(console: &[String], pattern: &[u8]) -> Result<()> {
    let said = |what: &str| {
        let line = format!("guest: {what}");
        ensure!(console.contains(&line), "no {line:?}");
        Ok(())
    };
    let hash: String = Sha256::digest(pattern)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for (format, packed) in [("packed", 1), ("split", 0)] {
        said(&format!(
            "{format}: sectors=131072 serial=disk0 queues=2 discard=1073741824 ring={packed}"
        ))?;
        for file in ["a", "b", "c"] {
            said(&format!("{format}: {file}={hash}"))?;
        }
        let deaths =
            (3..=5).any(|deaths| said(&format!("{format}: deaths under load={deaths}")).is_ok());
        ensure!(
            deaths,
            "{format}: the load was over before the daemon was killed three times"
        );
        said(&format!("{format}: file system clean"))?;
        said(&format!("{format}: grown=147456"))?;
        said(&format!(
            "{format}: vduse-blk: disk0: the device is in use: `vdpa dev del` takes it off its bus"
        ))?;
        said(&format!("{format}: destroyed"))?;
    }
    Ok(())
}
