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
const PROGRAMS: [&str; 6] = [
    "vdpa",
    "mke2fs",
    "e2fsck",
    "strace",
    "qemu-storage-daemon",
    "qemu-img",
];
const PACKAGES: [&str; 4] = ["iproute2", "e2fsprogs", "strace", "qemu-utils"];

const DAEMON: &str = "vduse-blk";

const SPEED_SCRIPT: &str = include_str!("../../src/linux_guest/vduse_speed.sh");
const SCRIPT: &str = include_str!("../../src/linux_guest/vduse.sh");

/// What is written to each file.
const PATTERN_BYTES: usize = 2 << 20;

pub fn trials() -> Vec<Trial> {
    let trial = |name: &str, run: fn() -> Result<Completion>| {
        Trial::ignorable_test(format!("vduse_linux::{name}"), move || {
            run().map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    vec![
        trial("disk_of_a_daemon_outlives_it", disk_of_a_daemon),
        // A figure for people, on a host that does nothing else.
        trial("speed_beside_qemu", speed).with_ignored_flag(true),
    ]
}

fn disk_of_a_daemon() -> Result<Completion> {
    let daemon = programs::build(DAEMON).map_err(|error| anyhow!("{error}"))?;
    let pattern = noise::bytes(61, PATTERN_BYTES);
    let smp = ["-smp", "cpus=2"];
    let console = match run(SCRIPT, &daemon, &pattern, &smp)? {
        Ok(console) => console,
        Err(missing) => return Ok(requirement::skip(missing).map(Completion::ignored_with)?),
    };
    judge(&console, &pattern).with_context(|| console.join("\n"))?;
    Ok(Completion::Completed)
}

/// Prints how many blocks a second our daemon and QEMU's serve, in turn.
fn speed() -> Result<Completion> {
    let daemon = programs::build_fast(DAEMON).map_err(|error| anyhow!("{error}"))?;
    // A nanosecond each, whatever else the host does.
    let clock = ["-icount", "shift=0,sleep=off"];
    let console = match run(SPEED_SCRIPT, &daemon, &[], &clock)? {
        Ok(console) => console,
        Err(missing) => return Ok(requirement::skip(missing).map(Completion::ignored_with)?),
    };
    for line in &console {
        println!("{line}");
    }
    Ok(Completion::Completed)
}

/// Boots a Linux that runs `script`, and returns what it says.
fn run(
    script: &str,
    daemon: &Path,
    pattern: &[u8],
    options: &[&str],
) -> Result<Result<Vec<String>, Missing>> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
    let (kernel, files) = match files(&cache, script, daemon) {
        Ok(made) => made,
        Err(missing) => return Ok(Err(missing)),
    };
    let files = files.with("pattern", pattern);
    let folder = tempfile::tempdir()?;
    let initramfs = folder.path().join("initramfs");
    files.write(File::create(&initramfs)?)?;
    let mut guest = Guest {
        append: "console=ttyS0 quiet panic=-1 no_timer_check".into(),
        memory: Memory::from_mib(512)?,
        ..Guest::new(kernel)
    };
    guest.extra.extend(["-initrd".into(), initramfs.into()]);
    guest.extra.extend(options.iter().map(Into::into));
    Ok(Ok(boot(&guest, PATIENCE)?.console))
}

/// The kernel; and busybox, the script, and the programs that it runs.
fn files(cache: &Path, script: &str, daemon: &Path) -> Result<(PathBuf, Initramfs), Missing> {
    let debian = Debian::with_kernel_of(SUITE, cache)?;
    let tools = Tools::ensure(SUITE, &PACKAGES, cache)?;
    let files = Initramfs::new(&debian, &MODULES, script)?;
    let own = [
        &*daemon.to_string_lossy(),
        env!("CARGO_BIN_EXE_vhost_vdpa_disk"),
    ];
    let files = tools.add_to(files, &[&PROGRAMS[..], &own].concat())?;
    Ok((debian.kernel()?, files))
}

fn judge(console: &[String], pattern: &[u8]) -> Result<()> {
    // The script says what has gone wrong.
    for wrong in ["failed", "not true", "the daemon says"] {
        let said = console
            .iter()
            .find(|line| line.starts_with("guest: ") && line.contains(wrong));
        ensure!(said.is_none(), "{said:?}");
    }
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
        said(&format!("{format}: file system clean"))?;
        said(&format!("{format}: grown=147456"))?;
        said(&format!(
            "{format}: vduse-blk: disk0: the device is in use: `vdpa dev del` takes it off its bus"
        ))?;
        said(&format!("{format}: destroyed"))?;
    }
    for what in [
        "mappings=1",
        "mappings=0",
        "read",
        "changed=65536",
        "destroyed",
    ] {
        said(&format!("vhost: {what}"))?;
    }
    let [ours, theirs] = ["ours", "theirs"].map(|daemon| Trace::of(console, daemon));
    ensure!(ours == theirs, "{ours:?} is not in the order of {theirs:?}");
    ensure!(ours.start.len() >= 10, "{ours:?} is no start");
    Ok(())
}

/// In which order a daemon sets a device up and starts it: what our daemon and QEMU's must have in
/// common.
#[derive(Debug, PartialEq, Eq)]
struct Trace<'a> {
    set_up: Vec<&'a str>,
    start: Vec<&'a str>,
    messages: usize,
}

impl<'a> Trace<'a> {
    fn of(console: &'a [String], daemon: &str) -> Self {
        let line = format!("guest: {daemon}: ");
        let words = console.iter().find_map(|said| said.strip_prefix(&line));
        let words: Vec<&str> = words.unwrap_or_default().split_whitespace().collect();
        let serving = words.iter().position(|word| *word == "read");
        let (set_up, serving) = words.split_at(serving.unwrap_or(words.len()));
        // What starts the queues ends with the answer to the message that said so.
        let kick = serving.iter().position(|word| *word == "VQ_SETUP_KICKFD");
        let kick = kick.unwrap_or(serving.len());
        let answer = serving[kick..].iter().position(|word| *word == "write");
        let started = answer.map_or(serving.len(), |after| kick + after + 1);
        let among = |words: &[&'a str], wanted: &[&str]| {
            let words = words.iter().filter(|word| wanted.contains(word));
            words.copied().collect::<Vec<_>>()
        };
        let start = [
            "read",
            "write",
            "VQ_GET_INFO",
            "IOTLB_GET_FD",
            "VQ_SETUP_KICKFD",
        ];
        Self {
            set_up: among(set_up, &["SET_API_VERSION", "CREATE_DEV", "VQ_SETUP"]),
            start: among(&serving[..started], &start),
            messages: among(serving, &["read"]).len(),
        }
    }
}
