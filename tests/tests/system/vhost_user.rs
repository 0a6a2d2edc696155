//! Real drivers on our device side: QEMU passes the rings of its guest to this process, where
//! `virtq::device` works on them.
//!
//! The drivers are the unikernel's own, which meets QEMU's own device side elsewhere, and those of
//! a Debian Linux, where its packages can be had.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use guest_tests::disk::{READ_ONLY, WRITABLE};
use libtest_mimic::{Completion, Failed, Trial};
use qemu::build::Profile;
use qemu::device::{Net, NetBackend, Switch};
use qemu::guest::Guest;
use qemu::image::DiskImage;
use qemu::interrupt::Interrupt;
use qemu::machine::Memory;
use qemu::running::Running;
use sha2::{Digest, Sha256};
use tests::disks::TestDisks;
use tests::linux_guest::{Debian, Initramfs, Missing};
use tests::run::{self, boot};
use tests::transcript::{Judgement, Verdict, excerpt};
use tests::vhost_user::{Access, Disk, FrontEnd, MonitorSocket, Report, Server};
use tests::web::Site;
use tests::{kernels, noise, requirement};

/// A guest that has not ended by then hangs. A busy host of two cores needs a tenth of it.
const PATIENCE: Duration = Duration::from_secs(180);

/// The size of each disk of a Linux guest.
const DISK_BYTES: usize = 16 << 20;

/// What a Linux guest does with them.
const LINUX_SCRIPT: &str = include_str!("../../src/linux_guest/disk.sh");

/// The modules of a virtio disk on PCI.
const LINUX_MODULES: [&str; 2] = ["virtio_pci", "virtio_blk"];

/// How the names of the unikernel's tests begin that have to do with no disk: they are run elsewhere.
const WITHOUT_DISKS: [&str; 6] = ["heap", "net", "pci", "time", "vduse", "vhost::network"];

/// The queues that the device has, whatever QEMU uses of them.
const QUEUES: u16 = 4;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for front_end in front_ends() {
        trials.push(trial(
            "unikernel_passes_its_tests",
            front_end,
            unikernel_passes_its_tests,
        ));
    }
    for front_end in [usual(Switch::Off), usual(Switch::On)] {
        trials.push(trial(
            "site_serves_the_file_byte_for_byte",
            front_end,
            site_serves_the_file,
        ));
    }
    trials.push(Trial::ignorable_test(
        "vhost_user::linux_writes_and_reads_back",
        || linux_writes_and_reads_back().map_err(|error| Failed::from(format!("{error:#}"))),
    ));
    trials
}

fn trial(name: &str, front_end: FrontEnd, run: fn(FrontEnd) -> Result<Completion>) -> Trial {
    Trial::ignorable_test(format!("vhost_user::{name}::{front_end}"), move || {
        run(front_end).map_err(|error| Failed::from(format!("{error:#}")))
    })
}

/// A device with everything on.
fn usual(packed: Switch) -> FrontEnd {
    FrontEnd {
        packed,
        event_idx: Switch::On,
        indirect_desc: Switch::On,
        queue_size: 128,
        queues: 1,
    }
}

/// Either format with each feature on and off, a small queue, and several queues.
fn front_ends() -> Vec<FrontEnd> {
    let mut all = Vec::new();
    for packed in [Switch::Off, Switch::On] {
        let usual = usual(packed);
        for event_idx in [Switch::On, Switch::Off] {
            for indirect_desc in [Switch::On, Switch::Off] {
                all.push(FrontEnd {
                    event_idx,
                    indirect_desc,
                    ..usual
                });
            }
        }
        all.push(FrontEnd {
            queue_size: 4,
            ..usual
        });
        all.push(FrontEnd {
            queue_size: 1024,
            queues: QUEUES,
            ..usual
        });
    }
    all
}

fn unikernel_passes_its_tests(front_end: FrontEnd) -> Result<Completion> {
    let kernel = kernel(&GUEST_TESTS)?;
    let names: Vec<String> = test_names()?
        .iter()
        .filter(|name| run::uses_the_machine(name))
        .filter(|name| !WITHOUT_DISKS.iter().any(|part| name.starts_with(part)))
        .cloned()
        .collect();
    let disks = TestDisks::new().context("the test disks cannot be made")?;
    let serve = |id: &str, access| {
        let image = OpenOptions::new()
            .read(true)
            .write(true)
            .open(disks.path(id))?;
        anyhow::Ok(Server::start(Disk::new(image, access, id)?, QUEUES)?)
    };
    let writable = serve(WRITABLE, Access::ReadWrite)?;
    let read_only = serve(READ_ONLY, Access::ReadOnly)?;
    let mut guest = Guest {
        nets: vec![Net::new(NetBackend::User {
            forwards: Vec::new(),
        })],
        append: format!("{},{}", run::skip_simulated(), WITHOUT_DISKS.join(",")),
        ..Guest::new(kernel)
    };
    front_end.attach(&mut guest, &[&writable, &read_only]);

    let run = boot(&guest, PATIENCE)?;

    let judgement = Judgement::of(&names, &run.console, &run.end);
    for server in [writable, read_only] {
        check(&server.finish(), front_end)?;
    }
    let failed: Vec<String> = names
        .iter()
        .filter_map(|name| match judgement.verdict(name) {
            Verdict::Passed => None,
            Verdict::Ignored(reason) | Verdict::Failed(reason) => Some(format!("{name}: {reason}")),
        })
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    judgement
        .run()
        .map_err(|fault| anyhow!("{fault}{}", excerpt(&run.console)))?;
    disks.compare().map_err(|fault| anyhow!(fault))?;
    Ok(Completion::Completed)
}

fn site_serves_the_file(front_end: FrontEnd) -> Result<Completion> {
    let directory = tempfile::tempdir()?;
    let bytes = noise::bytes(21, (16 << 20) + 7);
    fs::write(directory.path().join("file.bin"), &bytes)?;
    let image = DiskImage::from_directory(directory.path(), &Interrupt::default())?;
    let disk = Disk::new(File::open(image.path())?, Access::ReadOnly, "site")?;
    let server = Server::start(disk, QUEUES)?;
    let (mut guest, port) = Site::machine(kernel(&SITE)?, image.path())?;
    guest.disks.clear();
    front_end.attach(&mut guest, &[&server]);

    let site = Site::boot(&guest, port, PATIENCE).map_err(|error| anyhow!("{error}"))?;
    let answer = site.client().body("/files/file.bin", &[]);
    let (status, body) = answer.map_err(|error| anyhow!("{error}"))?;

    ensure!(status == 200, "status {status}");
    ensure!(
        Sha256::digest(&body) == Sha256::digest(&bytes),
        "the file has other bytes"
    );
    drop(site);
    check(&server.finish(), front_end)?;
    Ok(Completion::Completed)
}

/// Times that a Linux guest is stopped and let go on while it writes.
const PAUSES: u32 = 10;

/// A disk of a Linux guest: how it is offered, under which serial, what it holds, and where.
struct LinuxDisk {
    front_end: FrontEnd,
    serial: String,
    before: Vec<u8>,
    image: PathBuf,
    server: Server,
}

impl LinuxDisk {
    /// One of either format, with and without event indices.
    fn all(directory: &Path) -> Result<Vec<Self>> {
        let mut disks = Vec::new();
        for packed in [Switch::Off, Switch::On] {
            for event_idx in [Switch::On, Switch::Off] {
                let front_end = FrontEnd {
                    event_idx,
                    queues: 2,
                    ..usual(packed)
                };
                let serial = format!("packed-{packed}-idx-{event_idx}");
                let before = noise::bytes(31 + disks.len() as u64, DISK_BYTES);
                let image = directory.join(&serial);
                fs::write(&image, &before)?;
                let file = OpenOptions::new().read(true).write(true).open(&image)?;
                let server = Server::start(Disk::new(file, Access::ReadWrite, &serial)?, QUEUES)?;
                disks.push(Self {
                    front_end,
                    serial,
                    before,
                    image,
                    server,
                });
            }
        }
        Ok(disks)
    }

    /// Whether the guest, which has said this and is gone, has found everything and left `after`.
    fn check(self, said: &[String], after: &[u8]) -> Result<()> {
        let Self {
            front_end, serial, ..
        } = self;
        for what in [
            format!("sectors={}", DISK_BYTES / 512),
            format!("queues={}", front_end.queues),
            "discard=0".into(),
            format!("found={}", sha256(&self.before)),
            "differences=none".into(),
            format!("left={}", sha256(after)),
        ] {
            let line = format!("guest: {serial} {what}");
            ensure!(said.contains(&line), "no {line:?}");
        }
        let report = self.server.finish();
        check(&report, front_end).context(serial)?;
        ensure!(
            report.requests.writes > 0 && report.requests.flushes > 0,
            "{:?}",
            report.requests
        );
        let used = &report.queues[..front_end.queues.into()];
        ensure!(
            used.iter().all(|counters| counters.popped > 0),
            "a queue was not used: {used:?}"
        );
        ensure!(
            report.resumed >= PAUSES.into(),
            "resumed {}",
            report.resumed
        );
        ensure!(
            fs::read(&self.image)? == after,
            "the image is not what the guest wrote"
        );
        Ok(())
    }
}

fn linux_writes_and_reads_back() -> Result<Completion> {
    let debian = match debian() {
        Ok(debian) => debian,
        Err(missing) => return Ok(requirement::skip(missing).map(Completion::ignored_with)?),
    };
    let directory = tempfile::tempdir()?;
    let after = noise::bytes(30, DISK_BYTES);
    let disks = LinuxDisk::all(directory.path())?;
    let serials: Vec<&str> = disks.iter().map(|disk| disk.serial.as_str()).collect();
    let initramfs = directory.path().join("initramfs");
    Initramfs::new(debian, &LINUX_MODULES, LINUX_SCRIPT)?
        .with("pattern", &after)
        .with("disks", serials.join("\n").as_bytes())
        .write(File::create(&initramfs)?)?;
    let mut guest = Guest {
        append: "console=ttyS0 quiet panic=-1".into(),
        memory: Memory::from_mib(256)?,
        ..Guest::new(debian.kernel()?)
    };
    guest.extra.extend(["-initrd".into(), initramfs.into()]);
    guest.extra.extend(["-smp", "cpus=2"].map(Into::into));
    let devices: Vec<_> = disks
        .iter()
        .map(|disk| (disk.front_end, &disk.server))
        .collect();
    FrontEnd::attach_all(&mut guest, &devices);
    let monitor = MonitorSocket::attach(&mut guest)?;

    let mut running = guest.spawn()?;
    let deadline = Instant::now() + PATIENCE;
    let written = pause_while_it_writes(&mut running, &monitor, deadline);
    let console = running.console().to_vec();
    written.with_context(|| console.join("\n"))?;
    let ended = running.finish(deadline)?;

    let console = &ended.console;
    for disk in disks {
        let checked = disk.check(console, &after);
        checked.with_context(|| format!("{}\n{}", console.join("\n"), ended.complaints))?;
    }
    Ok(Completion::Completed)
}

/// Stops the machine a few times between two lines of its console.
fn pause_while_it_writes(
    running: &mut Running,
    monitor: &MonitorSocket,
    deadline: Instant,
) -> Result<()> {
    running.wait_for("guest: writing", deadline)?;
    let mut monitor = monitor.connect()?;
    for _ in 0..PAUSES {
        thread::sleep(Duration::from_millis(30));
        monitor.stop()?;
        monitor.go_on()?;
    }
    while let Ok(Some(line)) = running.next_line(Instant::now()) {
        ensure!(
            line != "guest: written",
            "it had written before the last pause"
        );
    }
    running.wait_for("guest: written", deadline)?;
    Ok(())
}

/// Kernel and tools, fetched by the first who asks.
fn debian() -> Result<&'static Debian, &'static Missing> {
    static DEBIAN: OnceLock<Result<Debian, Missing>> = OnceLock::new();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
    DEBIAN.get_or_init(|| Debian::ensure(&cache)).as_ref()
}

fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the device was used as the front-end offered it, and nothing went wrong.
fn check(report: &Report, front_end: FrontEnd) -> Result<()> {
    ensure!(
        report.faults.is_empty(),
        "the device: {}",
        report.faults.join("; ")
    );
    for (feature, switch) in [
        (virtio::F::VERSION_1, Switch::On),
        (virtio::F::RING_PACKED, front_end.packed),
        (virtio::F::EVENT_IDX, front_end.event_idx),
        (virtio::F::INDIRECT_DESC, front_end.indirect_desc),
    ] {
        let bits = feature.bits().to_ne();
        let found = u128::from(report.features) & bits == bits;
        ensure!(
            found == (switch == Switch::On),
            "{feature:?} is {found}, not {switch}"
        );
    }
    let (used, unused) = report.queues.split_at(front_end.queues.into());
    for counters in used {
        ensure!(counters.popped == counters.completed, "{counters:?}");
    }
    ensure!(
        used.iter().any(|counters| counters.popped > 0),
        "no queue was used"
    );
    ensure!(
        unused.iter().all(|counters| counters.popped == 0),
        "a queue that is not there"
    );
    ensure!(
        report.requests.reads > 0,
        "nothing was read: {:?}",
        report.requests
    );
    Ok(())
}

type Kernel = (&'static str, OnceLock<Result<PathBuf, String>>);

static GUEST_TESTS: Kernel = ("guest-tests", OnceLock::new());
static SITE: Kernel = ("site", OnceLock::new());

/// The optimized kernel, built by the first who asks.
fn kernel((package, built): &'static Kernel) -> Result<&'static PathBuf> {
    let built = built.get_or_init(|| {
        kernels::build(package, Profile::Compact).map_err(|error| error.to_string())
    });
    built.as_ref().map_err(|error| anyhow!("{error}"))
}

/// The names of the unikernel's tests.
fn test_names() -> Result<&'static [String]> {
    static NAMES: OnceLock<Result<Vec<String>, String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let kernel = kernel(&GUEST_TESTS).map_err(|error| error.to_string())?;
        run::test_names(kernel)
    });
    names.as_deref().map_err(|error| anyhow!("{error}"))
}
