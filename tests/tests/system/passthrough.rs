//! The unikernel on functions that a Linux passes to it with `vfio-pci`, in a machine in a machine.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::{Completion, Failed, Trial};
use qemu::build::Profile;
use qemu::device::{Disk, Net, NetBackend, VirtioOptions};
use qemu::guest::Guest;
use qemu::image::DiskImage;
use qemu::interrupt::Interrupt;
use sha2::{Digest, Sha256};
use tests::disks::TestDisks;
use tests::linux_guest::Missing;
use tests::nested::{Host, Identity, end_of_inner, inner_console};
use tests::run::{boot, test_names};
use tests::transcript::{Judgement, Verdict};
use tests::web::Site;
use tests::{kernels, noise, programs, requirement};

/// What has not ended by then hangs. A busy host of two cores needs a tenth of it.
const PATIENCE: Duration = Duration::from_secs(300);

/// The file that the site serves: more than the rings hold at once.
const FILE_BYTES: usize = (4 << 20) + 7;

/// How the names of the tests begin that work with the functions. The others have been run where
/// time is cheaper.
const WITH_FUNCTIONS: [&str; 11] = [
    "blk",
    "conformance::qemu",
    "doorbells",
    "interrupts",
    "moving::disk_moves_between_hardware",
    "net",
    "pci",
    "removal",
    "time",
    "vhost::disks",
    "vhost::network",
];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("site_serves_the_file_byte_for_byte", Identity::Intel, site),
        trial("site_serves_the_file_byte_for_byte", Identity::Virtio, site),
        trial("unikernel_passes_its_tests", Identity::Intel, guest_tests),
        trial("functions_are_lent_for_a_run", Identity::Intel, lent),
    ]
}

fn trial(name: &str, identity: Identity, run: fn(&Host, Identity) -> Result<()>) -> Trial {
    Trial::ignorable_test(
        format!("passthrough::{name}::{identity}"),
        move || match host() {
            Ok(host) => match run(host, identity) {
                Ok(()) => Ok(Completion::Completed),
                Err(error) => Err(Failed::from(format!("{error:#}"))),
            },
            Err(missing) => Ok(requirement::skip(missing).map(Completion::ignored_with)?),
        },
    )
}

/// The Linux between, made by the first who asks.
fn host() -> Result<&'static Host, &'static Missing> {
    static HOST: OnceLock<Result<Host, Missing>> = OnceLock::new();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
    HOST.get_or_init(|| Host::ensure(&cache)).as_ref()
}

fn site(host: &Host, identity: Identity) -> Result<()> {
    let kernel = kernels::build("site", Profile::Compact).map_err(|error| anyhow!("{error}"))?;
    let directory = tempfile::tempdir()?;
    let bytes = noise::bytes(51, FILE_BYTES);
    fs::write(directory.path().join("file.bin"), &bytes)?;
    let image = DiskImage::from_directory(directory.path(), &Interrupt::default())?;
    let (inner, port) = Site::machine(&kernel, image.path())?;
    let nested = host.pass_to(inner, identity)?;

    let site = Site::boot(nested.outer(), port, PATIENCE).map_err(|error| anyhow!("{error}"))?;
    let get = |path: &str| {
        let answer = site.client().body(path, &[]);
        answer.map_err(|error| anyhow!("{path}: {error}"))
    };
    let answers = get("/files/file.bin").and_then(|file| Ok((file, get("/")?)));

    let console = site.console();
    let judged = answers.and_then(|((status, body), (_, page))| {
        ensure!(status == 200, "the file: status {status}");
        ensure!(
            Sha256::digest(&body) == Sha256::digest(&bytes),
            "the file has other bytes"
        );
        let driver = parent_driver(identity);
        let page = String::from_utf8_lossy(&page);
        ensure!(page.contains(driver), "the page does not show {driver}");
        check_isolation(console, 2)?;
        check_functions(&inner_console(console), identity)
    });
    with_console(judged, console)
}

fn guest_tests(host: &Host, identity: Identity) -> Result<()> {
    let kernel =
        kernels::build("guest-tests", Profile::Compact).map_err(|error| anyhow!("{error}"))?;
    let mut names = test_names(&kernel).map_err(|error| anyhow!(error))?;
    names.retain(|name| WITH_FUNCTIONS.iter().any(|part| name.starts_with(part)));
    let disks = TestDisks::new()?;
    let inner = Guest {
        nets: vec![Net::new(NetBackend::User {
            forwards: Vec::new(),
        })],
        disks: disks.devices(VirtioOptions::default()),
        append: format!("only={}", WITH_FUNCTIONS.join(",")),
        ..Guest::new(&kernel)
    };
    let nested = host.pass_to(inner, identity)?;

    let outer = boot(nested.outer(), PATIENCE)?;

    let compared = disks.compare().map_err(|fault| anyhow!(fault));
    let judgement = Judgement::of(
        &names,
        &inner_console(&outer.console),
        &end_of_inner(&outer),
    );
    let failed: Vec<String> = names
        .iter()
        .filter_map(|name| match judgement.verdict(name) {
            Verdict::Passed | Verdict::Ignored(_) => None,
            Verdict::Failed(reason) => Some(format!("{name}: {reason}")),
        })
        .collect();
    let judged = match failed.join("; ") {
        failed if failed.is_empty() => judgement.run().map_err(|fault| anyhow!(fault)),
        failed => Err(anyhow!(failed)),
    };
    let judged = judged
        .and(compared)
        .and_then(|()| check_isolation(&outer.console, 3));
    with_console(judged, &outer.console)
}

/// The program behind `cargo run` takes functions from their driver for the time of a run.
fn lent(host: &Host, _: Identity) -> Result<()> {
    let program = programs::build("qemu")?;
    let kernel = kernels::build("hello", Profile::Test).map_err(|error| anyhow!("{error}"))?;
    let image = DiskImage::from_directory(tempfile::tempdir()?.path(), &Interrupt::default())?;
    let inner = Guest {
        nets: vec![Net::new(NetBackend::User {
            forwards: Vec::new(),
        })],
        disks: vec![Disk::new(image.path())],
        ..Guest::new(&kernel)
    };
    let nested = host.lend_to(&program, &inner)?;

    let outer = boot(nested.outer(), PATIENCE)?;

    let inner = inner_console(&outer.console);
    let expected = [
        "binding 0000:01:00.0 to vfio-pci (driver virtio-pci)",
        "binding 0000:02:00.0 to vfio-pci (driver virtio-pci)",
        "[1af4:1041] class 020000: ifcvf, ",
        "Hello from a unikernel.",
        "0000:02:00.0 is as before (driver virtio-pci)",
        "0000:01:00.0 is as before (driver virtio-pci)",
    ];
    let said = in_order(&inner, &expected);
    let expected = [
        "0000:01:00.0 afterwards: driver=virtio-pci override=(null)",
        "0000:02:00.0 afterwards: driver=virtio-pci override=(null)",
        "host: the inner machine ended with 0",
    ];
    let judged = said.and_then(|()| in_order(&outer.console, &expected));
    with_console(judged, &outer.console)
}

/// Whether there are lines with these words, one after the other.
fn in_order(console: &[String], expected: &[&str]) -> Result<()> {
    let mut lines = console.iter();
    for words in expected {
        let found = lines.any(|line| line.contains(words));
        ensure!(found, "no line says {words:?} in its turn");
    }
    Ok(())
}

/// A failure shows what both machines have said.
fn with_console(judged: Result<()>, console: &[String]) -> Result<()> {
    judged.map_err(|error| anyhow!("{error:#}\n{}", console.join("\n")))
}

/// The parent driver that must take functions of this identity.
fn parent_driver(identity: Identity) -> &'static str {
    match identity {
        Identity::Virtio => "vp_vdpa",
        Identity::Intel => "ifcvf",
    }
}

/// Whether each of so many functions was alone in its group, with translation, when it was passed
/// on.
fn check_isolation(console: &[String], functions: u32) -> Result<()> {
    for bus in 1..=functions {
        let place = format!("host: 0000:{bus:02x}:00.0 ");
        let said = console.iter().find(|line| line.starts_with(&place));
        let said = said.with_context(|| format!("no line begins with {place:?}"))?;
        // The other kinds of domain are no isolation: identity, unmanaged, blocked.
        for part in ["domain=DMA", "members=1", "driver=vfio-pci"] {
            ensure!(said.contains(part), "{said:?} does not say {part}");
        }
    }
    Ok(())
}

/// Whether the guest has found card and disk for what they are, and works with them through the
/// bus.
fn check_functions(console: &[String], identity: Identity) -> Result<()> {
    let driver = format!(": {}, ", parent_driver(identity));
    let vendor = match identity {
        Identity::Virtio => "vendor 0x1af4",
        Identity::Intel => "vendor 0x8086",
    };
    let has = |parts: &[&str]| {
        let found = console
            .iter()
            .any(|line| parts.iter().all(|part| line.contains(part)));
        ensure!(found, "no line says {parts:?}");
        Ok(())
    };
    for (ids, device) in [
        ("[1af4:1041", "network device"),
        ("[1af4:1042", "block device"),
    ] {
        has(&["pci 0000:00:", ids, &driver])?;
        has(&[" on pci0000:00:", device, vendor])?;
    }
    // A device behind an IOMMU, and the address the outer network gives its first guest.
    has(&["virtio0 on vdpa0", "ACCESS_PLATFORM"])?;
    has(&["virtio1 on vdpa1", "ACCESS_PLATFORM"])?;
    has(&["net0: 10.0.2.15/24 by DHCP"])
}
