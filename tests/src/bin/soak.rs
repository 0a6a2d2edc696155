//! Lets the default unikernel work for hours: `cargo run -p tests --bin soak [-- SECONDS]`, an hour
//! unless told otherwise.
//!
//! Downloads, slow readers, simulated devices that are made, shown and deleted, a disk that is
//! moved to another function and back, and a link that goes away now and then, all at once. Every
//! file must arrive byte for byte, every change must succeed, and when all is quiet the machine
//! must use no more memory than after the first minute.
//!
//! `cargo run -p tests --bin soak -- vduse [SECONDS]` lets tasks that serve disks end each second
//! instead, under traffic of the kernel and of a client, for ten minutes unless told otherwise.

use std::error::Error;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qemu::build::Profile;
use qemu::format::Access;
use qemu::guest::Guest;
use qemu::image::DiskImage;
use qemu::interrupt::Interrupt;
use serde_json::Value;
use tests::qmp::{Cable, Qmp, Socket};
use tests::run::boot;
use tests::transcript::End;
use tests::web::{Client, Site, connect};
use tests::{kernels, noise};

type Fault = Box<dyn Error>;

/// What a run lasts unless it is told otherwise.
const SECONDS: u64 = 3600;
/// How long everything is done once before memory is looked at: pools fill, stacks grow.
const WARM_UP: Duration = Duration::from_secs(60);
/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take until closed connections are forgotten.
const QUIET: Duration = Duration::from_secs(90);
/// What may be in use more than after the warm-up, in bytes: counters that have grown by a digit, a
/// connection more.
const SLACK: u64 = 16 << 10;
/// The file that is read: more than the rings hold at once.
const FILE_LEN: usize = (4 << 20) + 7;
const FILE: &str = "/files/file.bin";
const JSON: (&str, &str) = ("content-type", "application/json");

/// What has been done.
#[derive(Debug, Default)]
struct Done {
    downloads: AtomicU64,
    slow: AtomicU64,
    cut: AtomicU64,
    devices: AtomicU64,
    moves: AtomicU64,
    flaps: AtomicU64,
}

/// The site under load.
struct Soak<'a> {
    client: &'a Client,
    qmp: Mutex<Qmp>,
    bytes: &'a [u8],
    done: Done,
    ended: AtomicBool,
    faults: Mutex<Vec<String>>,
}

/// What the restarts of tasks last unless they are told otherwise, and the test that does them.
const RESTARTS: u64 = 600;
const RESTARTS_TEST: &str = "vduse::restarts";

fn main() -> Result<(), Fault> {
    if std::env::args().nth(1).as_deref() == Some("vduse") {
        return restarts();
    }
    let seconds = std::env::args()
        .nth(1)
        .map_or(Ok(SECONDS), |word| word.parse())?;
    let kernel = kernels::build("site", Profile::Compact).map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir()?;
    let bytes = noise::bytes(7, FILE_LEN);
    fs::write(folder.path().join("file.bin"), &bytes)?;
    let image = DiskImage::from_directory(folder.path(), &Interrupt::default())?;
    let (mut guest, port) = Site::machine(&kernel, image.path())?;
    guest.append = "ip=dhcp admin=http".into();
    // Two functions that lead to the same medium, as two of a storage card would.
    guest.disks[0].access = Access::ReadOnly;
    guest.disks.push(guest.disks[0].clone());
    let (guest, socket) = Socket::open(guest)?;
    let mut site = Site::boot(&guest, port, PATIENCE)?;
    let soak = Soak {
        client: site.client(),
        qmp: Mutex::new(socket.connect()?),
        bytes: &bytes,
        done: Done::default(),
        ended: AtomicBool::new(false),
        faults: Mutex::default(),
    };
    let whole = Duration::from_secs(seconds);
    soak.work(WARM_UP.min(whole / 5));
    let before = soak.settled(u64::MAX)?;
    println!("{before} bytes are in use after the warm-up");
    soak.work(whole);
    let after = soak.settled(before + SLACK)?;
    println!(
        "{after} bytes are in use after {seconds} s: {:?}",
        soak.done
    );
    let faults = soak.faults.into_inner().unwrap_or_default();
    if !site.is_running() {
        return Err("the machine has ended".into());
    }
    if !faults.is_empty() {
        return Err(format!("{} faults:\n{}", faults.len(), faults.join("\n")).into());
    }
    if after > before + SLACK {
        return Err(format!("memory grows: from {before} to {after} bytes").into());
    }
    Ok(())
}

/// Boots the guest's tests for the one in which tasks end.
fn restarts() -> Result<(), Fault> {
    let seconds = std::env::args()
        .nth(2)
        .map_or(Ok(RESTARTS), |word| word.parse())?;
    let kernel =
        kernels::build("guest-tests", Profile::Compact).map_err(|error| error.to_string())?;
    let guest = Guest {
        append: format!("only={RESTARTS_TEST} restarts={seconds}"),
        ..Guest::new(kernel)
    };
    let patience = Duration::from_secs(2 * seconds) + PATIENCE;
    let run = boot(&guest, patience)?;
    println!("{}", run.console.join("\n"));
    match run.end {
        End::Code(0) => Ok(()),
        end => Err(format!("the guest ended with {end:?}").into()),
    }
}

impl Soak<'_> {
    /// Everything at once, for so long.
    fn work(&self, time: Duration) {
        self.ended.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| self.repeat("download", Duration::ZERO, || self.download()));
            }
            for _ in 0..4 {
                scope.spawn(|| self.repeat("slow reader", Duration::ZERO, || self.read_slowly()));
            }
            for manager in ["vdpasim_net", "vdpasim_blk"] {
                let pause = Duration::from_millis(200);
                scope.spawn(move || self.repeat(manager, pause, || self.manage(manager)));
            }
            scope.spawn(|| self.repeat("move", Duration::from_secs(1), || self.move_disk()));
            scope.spawn(|| self.repeat("link", Duration::from_secs(5), || self.flap()));
            let start = Instant::now();
            while start.elapsed() < time && self.is_good() {
                thread::sleep(
                    time.saturating_sub(start.elapsed())
                        .min(Duration::from_secs(10)),
                );
                if let Ok(used) = self.used() {
                    println!("{:5} s: {used} bytes in use", start.elapsed().as_secs());
                }
            }
            self.ended.store(true, Ordering::Relaxed);
        });
    }

    /// Does `task` again and again until the end, or until it fails.
    fn repeat(&self, name: &str, pause: Duration, task: impl Fn() -> Result<(), Fault>) {
        while !self.ended.load(Ordering::Relaxed) {
            if let Err(error) = task() {
                let mut faults = self.faults.lock().expect("nobody panics with it");
                faults.push(format!("{name}: {error}"));
                return;
            }
            thread::sleep(pause);
        }
    }

    fn is_good(&self) -> bool {
        self.faults.lock().is_ok_and(|faults| faults.is_empty())
    }

    fn download(&self) -> Result<(), Fault> {
        let (status, body) = self.client.body(FILE, &[])?;
        if status != 200 || body != self.bytes {
            return Err(format!("status {status}, {} bytes", body.len()).into());
        }
        self.done.downloads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a part of the file in small pieces, and leaves.
    fn read_slowly(&self) -> Result<(), Fault> {
        let mut stream = connect(self.client.port())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {FILE} HTTP/1.1\r\nHost: soak\r\n\r\n")?;
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        for _ in 0..50 {
            match stream.read(&mut piece) {
                Ok(0) => return Err("the answer ends early".into()),
                Ok(count) => answer.extend(&piece[..count]),
                // A reader that stands still for long is cut off; what came before must be right.
                Err(error) if error.kind() == ErrorKind::ConnectionReset && !answer.is_empty() => {
                    self.done.cut.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
            if self.ended.load(Ordering::Relaxed) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(200));
        }
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let body = end.map_or(&[][..], |end| &answer[end + 4..]);
        if body.is_empty() || !self.bytes.starts_with(body) {
            return Err(format!("{} bytes that are not the file's", body.len()).into());
        }
        self.done.slow.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a simulated device, looks at it and deletes it.
    fn manage(&self, manager: &str) -> Result<(), Fault> {
        let name = format!("soak-{manager}");
        let add = format!(r#"{{"name": "{name}", "mgmtdev": "{manager}"}}"#);
        self.ask("POST", "/dev", &add, 201)?;
        self.ask("GET", &format!("/dev/{name}/config"), "", 200)?;
        self.ask("DELETE", &format!("/dev/{name}"), "", 200)?;
        self.done.devices.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Moves the disk to the other function and back.
    fn move_disk(&self) -> Result<(), Fault> {
        for (from, to) in [("vdpa1", "vdpa2"), ("vdpa2", "vdpa1")] {
            let body = format!(r#"{{"to": "{to}"}}"#);
            self.ask("POST", &format!("/dev/{from}/move"), &body, 200)?;
        }
        self.done.moves.fetch_add(2, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the cable out for a moment. What is under way then comes later.
    fn flap(&self) -> Result<(), Fault> {
        let mut qmp = self.qmp.lock().expect("nobody panics with it");
        qmp.set_link("net0", Cable::Out)?;
        thread::sleep(Duration::from_millis(200));
        qmp.set_link("net0", Cable::In)?;
        self.done.flaps.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn ask(&self, method: &str, path: &str, body: &str, expected: u16) -> Result<(), Fault> {
        let path = format!("/api/vdpa{path}");
        let (status, said) = self.client.send(method, &path, &[JSON], body)?;
        if status != expected {
            return Err(format!("{method} {path}: {status} {said}").into());
        }
        Ok(())
    }

    /// How many bytes the machine uses.
    fn used(&self) -> Result<u64, Fault> {
        let (_, body) = self.client.body("/api/status", &[])?;
        let status: Value = serde_json::from_slice(&body)?;
        let used = status["memory"]["used"].as_u64();
        used.ok_or_else(|| format!("no memory in {status}").into())
    }

    /// The least that is in use once nothing happens: at most `limit`, if it falls so far.
    fn settled(&self, limit: u64) -> Result<u64, Fault> {
        let start = Instant::now();
        let mut least = u64::MAX;
        let enough = if limit == u64::MAX { QUIET / 3 } else { QUIET };
        while start.elapsed() < enough && (least > limit || limit == u64::MAX) {
            least = least.min(self.used()?);
            thread::sleep(Duration::from_secs(2));
        }
        Ok(least)
    }
}
