//! The unikernel on Intel's card, as QEMU has it from another process: every product, in each
//! interrupt mode, at work, with the unikernel's own tests, and misbehaving.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use guest_tests::disk::{READ_ONLY, WRITABLE};
use libtest_mimic::{Completion, Failed, Trial};
use qemu::build::Profile;
use qemu::device::VirtioOptions;
use qemu::guest::Guest;
use qemu::image::DiskImage;
use qemu::interrupt::Interrupt;
use sha2::{Digest, Sha256};
use tests::card::{self, Card, Report, share_memory};
use tests::disks::TestDisks;
use tests::new_qemu::{self, TooOld};
use tests::run::{boot, skip_simulated, test_names, uses_the_machine};
use tests::transcript::{Judgement, Verdict};
use tests::web::{Site, connect};
use tests::{kernels, noise, requirement};

/// What has not happened by then never does. A busy host of two cores needs a tenth of it.
const PATIENCE: Duration = Duration::from_secs(180);

/// A waiter for a card that has gone is told sooner than that.
const END: Duration = Duration::from_secs(20);

/// The file that the site serves: more than the rings hold at once.
const FILE_BYTES: usize = (4 << 20) + 7;

/// SeaBIOS looks for something to boot on a block card. It knows nothing of Intel's registers, and
/// does not wait between the steps of the initialisation, nor ask for the generation of the
/// configuration.
const OF_THE_FIRMWARE: &[&str] = &[
    "queue 0 enabled before the count was told",
    "sets 0x1 at once",
    "written before it was read as 0",
    "accessed during a reset",
    "read before the generation",
    "not read after the configuration",
    "without its feature",
];

/// The conformance suite asks whether a queue can be notified in every state, on purpose.
const OF_THE_SUITE: &[&str] = &["notified before DRIVER_OK"];

/// A network card and a block card.
type Pair = (&'static str, &'static str);

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("vanishes_while_it_serves", vanishes_while_it_serves),
        trial("unikernel_passes_its_tests", unikernel_passes_its_tests),
    ];
    let pairs: [Pair; 3] = [
        ("n3000-net", "modern-blk"),
        ("c5000x-net", "c5000x-blk"),
        ("n3000-net", "modern-blk-default"),
    ];
    for (pair, options) in [
        (pairs[0], &[][..]),
        (pairs[1], &[]),
        (pairs[2], &["--page-per-queue"]),
        // Shared by the queues, and one for everything.
        (pairs[0], &["--vectors", "2"]),
        (pairs[1], &["--vectors", "1"]),
        // None at all.
        (pairs[0], &["--misbehave", "refuses-vectors"]),
    ] {
        let name = format!("{}/{} {}", pair.0, pair.1, options.join(" "));
        let name = format!("site_serves_the_file_byte_for_byte::{}", name.trim());
        trials.push(trial(&name, move |emulator| {
            site_serves_the_file(emulator, pair, options)
        }));
    }
    for (misbehaviour, message) in [
        ("never-leaves-reset", "the device did not answer in time"),
        ("unsettled-generation", "the device did not answer in time"),
        (
            "bad-capabilities=misplaced",
            "the capability list is malformed",
        ),
        (
            "bad-capabilities=no-common",
            "no modern virtio capabilities",
        ),
        (
            "bad-capabilities=outside",
            "a virtio structure ends outside its BAR",
        ),
        (
            "bad-capabilities=wraps",
            "a virtio structure ends outside its BAR",
        ),
        (
            "bad-capabilities=no-bar",
            "a virtio structure is in a BAR where the card has none",
        ),
        ("bad-capabilities=short", "a virtio structure is too short"),
    ] {
        let name = format!("misbehaviour_is_explained::{misbehaviour}");
        trials.push(trial(&name, move |emulator| {
            is_explained(emulator, misbehaviour, message)
        }));
    }
    trials
}

fn trial(name: &str, run: impl FnOnce(&Path) -> Result<()> + Send + 'static) -> Trial {
    Trial::ignorable_test(format!("vfio_user::{name}"), move || match emulator() {
        Ok(emulator) => match run(emulator) {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => Err(Failed::from(format!("{error:#}"))),
        },
        // One that is named is wanted.
        Err(error @ TooOld::Named(_)) => Err(Failed::from(error.to_string())),
        Err(missing) => Ok(requirement::skip(missing).map(Completion::ignored_with)?),
    })
}

/// A QEMU that can, found by the first who asks.
fn emulator() -> Result<&'static Path, &'static TooOld> {
    static EMULATOR: OnceLock<Result<PathBuf, TooOld>> = OnceLock::new();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("qemu");
    let found = EMULATOR.get_or_init(|| new_qemu::find(&cache)).as_ref();
    found.map(PathBuf::as_path)
}

/// The card's program, built by the first who asks.
fn card(product: &str, options: &[&str]) -> Result<Card> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PROGRAM.get_or_init(|| card::build().map_err(|error| error.to_string()));
    let program = built.as_ref().map_err(|error| anyhow!("{error}"))?;
    Ok(Card::start(program, product, options)?)
}

/// A block card with this image.
fn disk(product: &str, image: &Path, options: &[&str]) -> Result<Card> {
    let image = image.to_str().context("the image's path is no text")?;
    card(product, &[&["--disk", image], options].concat())
}

fn site_serves_the_file(emulator: &Path, pair: Pair, options: &[&str]) -> Result<()> {
    let (image, bytes) = image(FILE_BYTES)?;
    let net = card(pair.0, &[&Card::CABLE, options].concat())?;
    let blk = disk(pair.1, image.path(), options)?;
    let (mut guest, port) = site(emulator, image.path())?;
    guest.nets.clear();
    guest.disks.clear();
    share_memory(&mut guest);
    net.plug_in(&mut guest, port);
    net.attach(&mut guest);
    blk.attach(&mut guest);

    let site = Site::boot(&guest, port, PATIENCE).map_err(|error| anyhow!("{error}"))?;
    let answer = site.client().body("/files/file.bin", &[]);

    let console = site.console().join("\n");
    drop(site);
    let (status, body) = answer.map_err(|error| anyhow!("{error}\n{console}"))?;
    ensure!(status == 200, "status {status}\n{console}");
    ensure!(
        Sha256::digest(&body) == Sha256::digest(&bytes),
        "the file has other bytes"
    );
    for device in ["network device", "block device"] {
        let bound = format!("{device}, vendor 0x8086");
        ensure!(console.contains(&bound), "no {bound:?} in\n{console}");
    }
    let bound = console.matches(": ifcvf, ").count();
    ensure!(bound == 2, "ifcvf has {bound} cards of 2\n{console}");
    judge(&net.finish()?, &[])?;
    judge(&blk.finish()?, OF_THE_FIRMWARE)
}

fn unikernel_passes_its_tests(emulator: &Path) -> Result<()> {
    let kernel =
        kernels::build("guest-tests", Profile::Compact).map_err(|error| anyhow!("{error}"))?;
    let mut names = test_names(&kernel).map_err(|error| anyhow!(error))?;
    names.retain(|name| uses_the_machine(name));
    let disks = TestDisks::new()?;
    let mac = ["--mac", "52:54:00:12:34:56"];
    let net = card("n3000-net", &[&Card::CABLE[..], &mac].concat())?;
    let blk = disk("modern-blk", &disks.path(WRITABLE), &["--id", WRITABLE])?;
    // A card's disk can be written.
    let mut read_only = disks.devices(VirtioOptions::default());
    read_only.retain(|disk| disk.serial.as_deref() == Some(READ_ONLY));
    let mut guest = Guest {
        append: format!("migration=on {}", skip_simulated()),
        emulator: emulator.into(),
        disks: read_only,
        ..Guest::new(&kernel)
    };
    share_memory(&mut guest);
    net.plug_in(&mut guest, free_port()?);
    net.attach(&mut guest);
    blk.attach(&mut guest);

    let run = boot(&guest, PATIENCE)?;

    let judgement = Judgement::of(&names, &run.console, &run.end);
    let failed: Vec<String> = names
        .iter()
        .filter_map(|name| match judgement.verdict(name) {
            Verdict::Passed => None,
            Verdict::Ignored(reason) | Verdict::Failed(reason) => Some(format!("{name}: {reason}")),
        })
        .collect();
    let console = run.console.join("\n");
    ensure!(failed.is_empty(), "{}\n{console}", failed.join("; "));
    judgement
        .run()
        .map_err(|fault| anyhow!("{fault}\n{console}"))?;
    disks.compare().map_err(|fault| anyhow!(fault))?;
    judge(&net.finish()?, OF_THE_SUITE)?;
    judge(&blk.finish()?, &[OF_THE_FIRMWARE, OF_THE_SUITE].concat())
}

/// A card that misbehaves from the beginning is left alone, and the rest of the machine works.
fn is_explained(emulator: &Path, misbehaviour: &str, message: &str) -> Result<()> {
    let (image, _) = image(1)?;
    let blk = disk("modern-blk", image.path(), &["--misbehave", misbehaviour])?;
    let (mut guest, port) = site(emulator, image.path())?;
    guest.disks.clear();
    share_memory(&mut guest);
    blk.attach(&mut guest);

    let site = Site::boot(&guest, port, PATIENCE).map_err(|error| anyhow!("{error}"))?;
    let answer = site.client().body("/", &[]);

    let console = site.console();
    let answer = answer.map_err(|error| anyhow!("{error}\n{}", console.join("\n")))?;
    ensure!(answer.0 == 200, "status {}", answer.0);
    let warned = |line: &String| line.contains("does not take it: ") && line.contains(message);
    ensure!(
        console.iter().any(warned),
        "no {message:?} in\n{}",
        console.join("\n")
    );
    drop(site);
    ensure!(blk.finish()?.success, "the card did not end well");
    Ok(())
}

/// A card that goes while its disk is read: who asks for a file is told, and the rest of the
/// machine works.
fn vanishes_while_it_serves(emulator: &Path) -> Result<()> {
    let (image, bytes) = image(FILE_BYTES)?;
    let mut blk = disk("modern-blk", image.path(), &[])?;
    let (mut guest, port) = site(emulator, image.path())?;
    guest.disks.clear();
    share_memory(&mut guest);
    blk.attach(&mut guest);
    let mut site = Site::boot(&guest, port, PATIENCE).map_err(|error| anyhow!("{error}"))?;
    let whole = site.client().body("/files/file.bin", &[]);
    ensure!(
        whole.is_ok_and(|(status, body)| status == 200 && body == bytes),
        "no file"
    );

    blk.order("vanishes")?;
    let mut stream = connect(port)?;
    stream.write_all(b"GET /files/file.bin HTTP/1.1\r\nhost: site\r\nconnection: close\r\n\r\n")?;
    let page = site.client().body("/", &[]);
    let (status, _) = page.map_err(|error| anyhow!("{error}"))?;
    ensure!(status == 200, "the page: status {status}");
    stream.set_read_timeout(Some(END))?;
    let mut body = Vec::new();
    let ended = stream.read_to_end(&mut body).map_err(|error| error.kind());
    // Cut off is an end as well.
    let waits = matches!(ended, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut));
    ensure!(!waits, "who asked for the file still waits");
    ensure!(body.len() < bytes.len(), "a card that is gone gave a file");
    ensure!(site.is_running(), "the machine has ended");
    drop(site);
    ensure!(blk.finish()?.success, "the card did not end well");
    Ok(())
}

/// A port that nobody uses, until somebody does.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// An image with a file of so many bytes.
fn image(len: usize) -> Result<(DiskImage, Vec<u8>)> {
    let directory = tempfile::tempdir()?;
    let bytes = noise::bytes(61, len);
    fs::write(directory.path().join("file.bin"), &bytes)?;
    let image = DiskImage::from_directory(directory.path(), &Interrupt::default())?;
    Ok((image, bytes))
}

/// The usual machine of the site under this emulator, and the port that leads to it.
fn site(emulator: &Path, image: &Path) -> Result<(Guest, u16)> {
    static KERNEL: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = KERNEL.get_or_init(|| {
        kernels::build("site", Profile::Compact).map_err(|error| error.to_string())
    });
    let kernel = built.as_ref().map_err(|error| anyhow!("{error}"))?;
    let (guest, port) = Site::machine(kernel, image)?;
    let emulator = emulator.into();
    Ok((Guest { emulator, ..guest }, port))
}

/// Whether a card ended well, and saw nothing of its drivers that it must not but what was
/// expected.
fn judge(report: &Report, expected: &[&str]) -> Result<()> {
    let is_expected = |violation: &String| expected.iter().any(|words| violation.contains(words));
    ensure!(
        report.success && report.violations.iter().all(is_expected),
        "the card: {report:?}"
    );
    Ok(())
}
