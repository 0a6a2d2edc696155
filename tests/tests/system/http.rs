//! The default unikernel as a web server: what a client of the host gets from it.

mod disks;
mod lint;
mod management;
mod memory;
mod paths;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use qemu::build::Profile;
use qemu::format::Access;
use qemu::guest::Guest;
use qemu::image::DiskImage;
use qemu::interrupt::Interrupt;
use qemu::machine::{Machine, Memory};
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};
use tests::web::{Site, header};
use tests::{kernels, noise};

system_tests![
    file_of_64_mib_arrives_byte_for_byte,
    twenty_downloads_at_once_arrive_byte_for_byte,
    ranges_are_the_bytes_asked_for,
    files_have_the_right_content_types,
    directories_list_what_is_in_them,
    what_is_not_there_is_not_found,
    front_page_shows_the_chain_of_every_device,
    console_says_who_was_found_and_what_is_served,
    thirty_two_mib_of_memory_are_enough,
    static_address_and_read_only_disk_serve_too,
    disk_without_a_file_system_is_named_on_the_console_and_the_page_still_answers,
    fifty_restarts_in_a_row_all_answer,
];

/// A boot that takes longer hangs: an idle host needs half a second.
const BOOT: Duration = Duration::from_secs(60);

/// A console that takes longer for an answer hangs.
const ANSWER: Duration = Duration::from_secs(20);

/// Boots in a row in the restart test.
const RESTARTS: usize = 50;

static KERNEL: LazyLock<PathBuf> =
    LazyLock::new(|| kernels::build("site", Profile::Compact).expect("the site builds"));

/// A directory to serve.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempdir().unwrap())
    }

    fn with(self, path: &str, bytes: &[u8]) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    fn image(&self) -> DiskImage {
        DiskImage::from_directory(self.0.path(), &Interrupt::default()).unwrap()
    }

    /// Serves them from the usual machine.
    fn serve(&self) -> (Site, DiskImage) {
        self.serve_on(|guest| guest)
    }

    /// Serves them from a machine that `change` has changed.
    fn serve_on(&self, change: impl FnOnce(Guest) -> Guest) -> (Site, DiskImage) {
        let image = self.image();
        (boot(image.path(), change), image)
    }
}

fn boot(image: &Path, change: impl FnOnce(Guest) -> Guest) -> Site {
    let (guest, port) = Site::machine(&KERNEL, image).unwrap();
    match Site::boot(&change(guest), port, BOOT) {
        Ok(site) => site,
        Err(error) => panic!("the site does not come up: {error}"),
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn file_of_64_mib_arrives_byte_for_byte() {
    let bytes = noise::bytes(64, 64 << 20);
    let (site, _image) = Files::new().with("large.bin", &bytes).serve();
    let response = site.client().head("/files/large.bin").unwrap();
    assert_eq!(header(&response, "content-length"), Some("67108864"));
    let (status, body) = site.client().body("/files/large.bin", &[]).unwrap();
    assert_eq!(status, 200);
    assert_eq!(body.len(), bytes.len());
    assert_eq!(sha256(&body), sha256(&bytes));
}

fn twenty_downloads_at_once_arrive_byte_for_byte() {
    let contents: Vec<Vec<u8>> = (0..20)
        .map(|seed| noise::bytes(seed, (4 << 20) + 11))
        .collect();
    let files = contents
        .iter()
        .enumerate()
        .fold(Files::new(), |files, (number, bytes)| {
            files.with(&format!("{number}.bin"), bytes)
        });
    let (site, _image) = files.serve();
    thread::scope(|scope| {
        for (number, bytes) in contents.iter().enumerate() {
            let client = site.client();
            scope.spawn(move || {
                let (status, body) = client.body(&format!("/files/{number}.bin"), &[]).unwrap();
                assert_eq!(status, 200);
                assert_eq!(sha256(&body), sha256(bytes), "download {number}");
            });
        }
    });
}

fn ranges_are_the_bytes_asked_for() {
    let bytes = noise::bytes(7, 1_000_003);
    let (site, _image) = Files::new().with("file.bin", &bytes).serve();
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=100-199", 100..200),
        ("bytes=511-512", 511..513),
        ("bytes=4095-70000", 4095..70001),
        ("bytes=999000-", 999_000..1_000_003),
        ("bytes=-500", 999_503..1_000_003),
        ("bytes=999999-2000000", 999_999..1_000_003),
    ] {
        let headers = [("range", range)];
        let response = site.client().get("/files/file.bin", &headers).unwrap();
        assert_eq!(response.status(), 206, "{range}");
        let place = format!("bytes {}-{}/1000003", expected.start, expected.end - 1);
        assert_eq!(
            header(&response, "content-range"),
            Some(place.as_str()),
            "{range}"
        );
        let (_, body) = site.client().body("/files/file.bin", &headers).unwrap();
        assert!(body == bytes[expected], "{range}");
    }
    let response = site
        .client()
        .get("/files/file.bin", &[("range", "bytes=1000003-")])
        .unwrap();
    assert_eq!(response.status(), 416);
    assert_eq!(header(&response, "content-range"), Some("bytes */1000003"));
}

fn files_have_the_right_content_types() {
    let names = [
        ("page.html", "text/html; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("code.js", "text/javascript; charset=utf-8"),
        ("note.txt", "text/plain; charset=utf-8"),
        ("data.json", "application/json"),
        ("picture.PNG", "image/png"),
        ("drawing.svg", "image/svg+xml"),
        ("unknown.xyz", "application/octet-stream"),
        ("bare", "application/octet-stream"),
    ];
    let files = names
        .iter()
        .fold(Files::new(), |files, (name, _)| files.with(name, b"x"));
    let (site, _image) = files.serve();
    for (name, content_type) in names {
        let response = site.client().get(&format!("/files/{name}"), &[]).unwrap();
        assert_eq!(response.status(), 200, "{name}");
        assert_eq!(
            header(&response, "content-type"),
            Some(content_type),
            "{name}"
        );
    }
}

fn directories_list_what_is_in_them() {
    let (site, _image) = Files::new()
        .with("top.txt", b"top")
        .with("docs/A file with spaces & ümläuts.txt", b"deep")
        .with("docs/empty", b"")
        .serve();
    let text = |path: &str| {
        let (status, body) = site.client().body(path, &[]).unwrap();
        assert_eq!(status, 200, "{path}");
        String::from_utf8(body).unwrap()
    };
    let root = text("/files/");
    assert!(root.contains("top.txt") && root.contains("docs"), "{root}");
    let docs = text("/files/docs/");
    assert!(
        docs.contains("A file with spaces &amp; ümläuts.txt"),
        "{docs}"
    );
    assert_eq!(
        text("/files/docs/A%20file%20with%20spaces%20%26%20%C3%BCml%C3%A4uts.txt"),
        "deep"
    );
    assert_eq!(text("/files/docs/empty"), "");
}

fn what_is_not_there_is_not_found() {
    let (site, _image) = Files::new().with("there.txt", b"x").serve();
    for path in [
        "/files/missing.txt",
        "/files/there.txt/below",
        "/nothing",
        "/files/../there.txt",
    ] {
        assert_eq!(
            site.client().get(path, &[]).unwrap().status(),
            404,
            "{path}"
        );
    }
    assert_eq!(
        site.client().get("/files/there.txt", &[]).unwrap().status(),
        200
    );
}

fn front_page_shows_the_chain_of_every_device() {
    let (site, _image) = Files::new().serve();
    let (status, body) = site.client().body("/", &[]).unwrap();
    assert_eq!(status, 200);
    let page = String::from_utf8(body).unwrap();
    for part in [
        "vdpa0",
        "vdpa1",
        "virtio0",
        "virtio1",
        "net0",
        "blk0",
        "VERSION_1",
    ] {
        assert!(page.contains(part), "the page does not show {part}");
    }
}

fn console_says_who_was_found_and_what_is_served() {
    let (site, _image) = Files::new().serve();
    let console = site.console().join("\n");
    for part in ["vdpa0", "virtio0", "net0", "blk0", "site: serving"] {
        assert!(
            console.contains(part),
            "the console does not say {part}:\n{console}"
        );
    }
}

fn thirty_two_mib_of_memory_are_enough() {
    let bytes = noise::bytes(3, 8 << 20);
    let (site, _image) = Files::new()
        .with("file.bin", &bytes)
        .serve_on(|guest| Guest {
            memory: Memory::from_mib(32).unwrap(),
            machine: Machine::Pc,
            ..guest
        });
    let (_, body) = site.client().body("/files/file.bin", &[]).unwrap();
    assert_eq!(sha256(&body), sha256(&bytes));
}

fn static_address_and_read_only_disk_serve_too() {
    let (site, _image) = Files::new()
        .with("file.txt", b"static")
        .serve_on(|mut guest| {
            guest.append = "ip=10.0.2.15/24,gw=10.0.2.2".into();
            guest.disks[0].access = Access::ReadOnly;
            guest
        });
    assert_eq!(
        site.client().body("/files/file.txt", &[]).unwrap(),
        (200, b"static".to_vec())
    );
}

fn disk_without_a_file_system_is_named_on_the_console_and_the_page_still_answers() {
    let directory = tempdir().unwrap();
    let image = directory.path().join("broken.img");
    fs::write(&image, noise::bytes(13, 1 << 20)).unwrap();
    let mut site = boot(&image, |guest| guest);
    let console = site.console().join("\n");
    assert!(console.contains("serving no files"), "{console}");
    assert_eq!(site.client().get("/", &[]).unwrap().status(), 200);
    assert_eq!(site.client().get("/files/", &[]).unwrap().status(), 503);
    assert!(site.is_running());
}

fn fifty_restarts_in_a_row_all_answer() {
    let files = Files::new().with("index.txt", b"here");
    let image = files.image();
    for number in 0..RESTARTS {
        let site = boot(image.path(), |guest| guest);
        let answer = site.client().body("/files/index.txt", &[]).unwrap();
        assert_eq!(answer, (200, b"here".to_vec()), "start {number}");
    }
}
