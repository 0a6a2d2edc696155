//! The default unikernel as a web server: what a client of the host gets from it.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose case cannot be set up has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use qemu::build::Profile;
use qemu::device::{Access, VirtioOptions};
use qemu::guest::Guest;
use qemu::image::DiskImage;
use qemu::interrupt::Interrupt;
use qemu::machine::{Machine, Memory};
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};
use tests::web::{Site, header};
use tests::{kernels, noise};

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

#[test]
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

#[test]
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

#[test]
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

#[test]
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

#[test]
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

#[test]
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

#[test]
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

#[test]
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

#[test]
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

#[test]
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

#[test]
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

#[test]
fn fifty_restarts_in_a_row_all_answer() {
    let files = Files::new().with("index.txt", b"here");
    let image = files.image();
    for number in 0..RESTARTS {
        let site = boot(image.path(), |guest| guest);
        let answer = site.client().body("/files/index.txt", &[]).unwrap();
        assert_eq!(answer, (200, b"here".to_vec()), "start {number}");
    }
}

#[test]
fn every_path_to_the_devices_serves_the_same_files() {
    let bytes = noise::bytes(21, (3 << 20) + 5);
    let files = Files::new().with("file.bin", &bytes);
    for (net, blk) in [
        ("virtio", "virtio"),
        ("virtio", "vhost"),
        ("vhost", "virtio"),
        ("vhost", "vhost"),
    ] {
        let (site, _image) = files.serve_on(|mut guest| {
            guest.append = format!("ip=dhcp net={net} blk={blk} vhost.noiommu=unsafe");
            guest
        });
        let (status, body) = site.client().body("/files/file.bin", &[]).unwrap();
        assert_eq!(status, 200, "net={net} blk={blk}");
        assert_eq!(sha256(&body), sha256(&bytes), "net={net} blk={blk}");
        let console = site.console().join("\n");
        let clients = console
            .matches("a client task drives it over vhost")
            .count();
        let expected = [net, blk].iter().filter(|path| **path == "vhost").count();
        assert_eq!(clients, expected, "{console}");
        let (_, page) = site.client().body("/", &[]).unwrap();
        let page = String::from_utf8(page).unwrap();
        for (path, driver) in [("virtio", "virtio_vdpa"), ("vhost", "vhost_vdpa")] {
            assert_eq!(
                page.contains(driver),
                [net, blk].contains(&path),
                "{driver}"
            );
        }
    }
}

#[test]
fn ifcvf_serves_the_same_files_from_qemus_card_and_disk() {
    let bytes = noise::bytes(22, (3 << 20) + 5);
    let files = Files::new().with("file.bin", &bytes);
    for (machine, paths) in [
        (Machine::Q35, ""),
        (Machine::Pc, ""),
        (Machine::Q35, "blk=vhost vhost.noiommu=unsafe"),
        (Machine::Q35, "net=vhost blk=vhost vhost.noiommu=unsafe"),
    ] {
        let (site, _image) = files.serve_on(|mut guest| {
            guest.machine = machine;
            guest.append = format!("ip=dhcp ifcvf=qemu {paths}");
            guest.nets[0].virtio = VirtioOptions::for_ifcvf();
            guest.disks[0].virtio = VirtioOptions::for_ifcvf();
            guest
        });
        let (status, body) = site.client().body("/files/file.bin", &[]).unwrap();
        assert_eq!(status, 200, "{machine} {paths}");
        assert_eq!(sha256(&body), sha256(&bytes), "{machine} {paths}");
        let console = site.console().join("\n");
        for (id, class) in [("1041", "020000"), ("1042", "010000")] {
            let line = format!("[1af4:{id}] class {class}: ifcvf, ");
            assert!(
                console.contains(&line),
                "{machine} {paths}: {line}\n{console}"
            );
        }
        let clients = console
            .matches("a client task drives it over vhost")
            .count();
        assert_eq!(clients, paths.matches("=vhost").count(), "{console}");
        assert!(!console.contains("vp_vdpa"), "{console}");
    }
}

#[test]
fn card_without_the_platforms_addresses_is_left_to_vp_vdpa() {
    let (site, _image) = Files::new().with("file.txt", b"x").serve_on(|mut guest| {
        guest.append = "ip=dhcp ifcvf=qemu".into();
        guest.disks[0].virtio = VirtioOptions::for_ifcvf();
        guest.nets[0].virtio = VirtioOptions {
            iommu_platform: None,
            ..VirtioOptions::for_ifcvf()
        };
        guest
    });
    let console = site.console().join("\n");
    for part in [
        "[1af4:1041] class 020000: vp_vdpa, ",
        "[1af4:1042] class 010000: ifcvf, ",
    ] {
        assert!(console.contains(part), "{part}: {console}");
    }
    let answer = site.client().body("/files/file.txt", &[]).unwrap();
    assert_eq!(answer, (200, b"x".to_vec()));
}

#[test]
fn vhost_without_isolation_is_refused_unless_it_is_asked_for_by_name() {
    let (site, _image) = Files::new().with("file.txt", b"x").serve_on(|mut guest| {
        guest.append = "ip=dhcp blk=vhost".into();
        guest
    });
    let console = site.console().join("\n");
    assert!(
        console.contains("error: vhost-vdpa-0: no client gets it"),
        "{console}"
    );
    assert!(console.contains("vhost.noiommu=unsafe"), "{console}");
    assert!(console.contains("serving no files"), "{console}");
    assert_eq!(
        site.client().get("/files/file.txt", &[]).unwrap().status(),
        503
    );
}

#[test]
fn devices_are_managed_on_the_console() {
    let (mut site, _image) = Files::new().serve();
    for (line, expected) in [
        ("help", "shows the device tree"),
        ("vdpa mgmtdev show vdpasim_net", "  supported_classes net"),
        (
            "vdpa dev show vdpa0",
            "vdpa0: type network mgmtdev pci/0000:00:",
        ),
        (
            "vdpa dev del vdpa0",
            "error: vdpa0: only a device that was added can be deleted",
        ),
        (
            "vdpa dev add name foo mgmtdev vdpasim_net mac 02:00:00:00:00:42",
            "> vdpa dev add",
        ),
        ("vdpa dev show foo", "foo: type network mgmtdev vdpasim_net"),
        (
            "vdpa dev config show foo",
            "foo: mac 02:00:00:00:00:42 link up",
        ),
        ("vdpa dev vstats show foo qidx 0", "foo: queue_type rx"),
        ("devices", "  foo (virtio_vdpa)"),
        (
            "vdpa dev add name foo mgmtdev vdpasim_blk",
            "error: foo: the name is taken",
        ),
        (
            "vdpa dev set name foo mac 02:00:00:00:00:43",
            "> vdpa dev set",
        ),
        (
            "vdpa -j dev config show foo",
            "\"mac\":\"02:00:00:00:00:43\"",
        ),
        ("vdpa dev del foo", "> vdpa dev del foo"),
        ("vdpa dev show foo", "error: foo: there is no such device"),
        ("frobnicate", "there is no command frobnicate; type help"),
    ] {
        if let Err(error) = site.type_line(line, expected, ANSWER) {
            panic!("{line}: {error}: no {expected:?}");
        }
    }
    assert_eq!(site.client().get("/", &[]).unwrap().status(), 200);
}

#[test]
fn devices_are_shown_over_http_and_changed_by_nobody() {
    let (site, _image) = Files::new().serve();
    let get = |path: &str| json(site.client().send("GET", path, &[], "").unwrap(), 200);
    let managers = get("/api/vdpa/mgmtdev");
    for name in ["vdpasim_net", "vdpasim_blk"] {
        assert!(
            managers["mgmtdev"][name]["supported_classes"].is_array(),
            "{managers}"
        );
    }
    let devices = get("/api/vdpa/dev");
    assert_eq!(devices["dev"]["vdpa0"]["type"], "network");
    let parent = devices["dev"]["vdpa0"]["mgmtdev"].as_str().unwrap();
    assert!(
        managers["mgmtdev"][parent]["max_supported_vqs"].is_u64(),
        "{managers}"
    );
    let configs = get("/api/vdpa/dev/config");
    assert_eq!(configs["config"]["vdpa0"]["link "], "up");
    assert!(configs["config"]["vdpa1"]["capacity"].is_u64(), "{configs}");
    assert_eq!(
        get("/api/vdpa/dev/vdpa1"),
        serde_json::json!({"dev": {"vdpa1": devices["dev"]["vdpa1"]}})
    );
    let add = r#"{"name": "foo", "mgmtdev": "vdpasim_net"}"#;
    for (method, path, body) in [
        ("POST", "/api/vdpa/dev", add),
        (
            "POST",
            "/api/vdpa/dev/vdpa0",
            r#"{"mac": "02:00:00:00:00:01"}"#,
        ),
        ("DELETE", "/api/vdpa/dev/vdpa0", ""),
    ] {
        let refused = site.client().send(method, path, &[JSON], body).unwrap();
        let refused = json(refused, 403);
        assert!(
            refused["error"].as_str().unwrap().contains("admin=http"),
            "{refused}"
        );
    }
    assert_eq!(get("/api/vdpa/dev"), devices);
}

#[test]
fn devices_are_changed_over_http_when_the_command_line_allows_it() {
    let (site, _image) = Files::new().serve_on(|mut guest| {
        guest.append = "ip=dhcp admin=http".into();
        guest
    });
    let ask = |method: &str, path: &str, headers: &[(&str, &str)], body: &str, status| {
        let path = format!("/api/vdpa{path}");
        json(
            site.client().send(method, &path, headers, body).unwrap(),
            status,
        )
    };
    let add =
        r#"{"name": "foo", "mgmtdev": "vdpasim_net", "mac": "02:00:00:00:00:42", "mtu": 1400}"#;
    ask("POST", "/dev", &[JSON], add, 201);
    ask("POST", "/dev", &[JSON], add, 409);
    let config = ask("GET", "/dev/foo/config", &[], "", 200);
    assert_eq!(config["config"]["foo"]["mac"], "02:00:00:00:00:42");
    assert_eq!(config["config"]["foo"]["mtu"], 1400);
    let statistics = ask("GET", "/dev/foo/vstats/0", &[], "", 200);
    assert_eq!(statistics["vstats"]["foo"]["queue_type"], "rx");
    ask(
        "POST",
        "/dev/foo",
        &[JSON],
        r#"{"mac": "02:00:00:00:00:43"}"#,
        200,
    );
    let config = ask("GET", "/dev/foo/config", &[], "", 200);
    assert_eq!(config["config"]["foo"]["mac"], "02:00:00:00:00:43");
    let (status, page) = site.client().send("GET", "/", &[], "").unwrap();
    assert!(
        status == 200 && page.contains("/api/vdpa/dev/foo/config"),
        "{page}"
    );

    let text = ("content-type", "text/plain");
    let (status, shown) = site
        .client()
        .send("POST", "/api/vdpa", &[text], "dev show foo")
        .unwrap();
    assert_eq!(status, 200);
    assert!(
        shown.starts_with("foo: type network mgmtdev vdpasim_net "),
        "{shown}"
    );
    ask(
        "POST",
        "",
        &[text, ("origin", "http://evil.example")],
        "dev del foo",
        403,
    );
    ask(
        "DELETE",
        "/dev/foo",
        &[("sec-fetch-site", "cross-site")],
        "",
        403,
    );
    ask("DELETE", "/dev/vdpa0", &[], "", 409);
    ask(
        "POST",
        "/dev",
        &[JSON],
        &format!("{{\"name\": \"{}\"}}", "x".repeat(2000)),
        413,
    );
    ask("POST", "/dev", &[JSON], "{", 400);
    ask("DELETE", "/dev/foo", &[], "", 200);
    ask("GET", "/dev/foo", &[], "", 404);
}

const JSON: (&str, &str) = ("content-type", "application/json");

fn json((status, body): (u16, String), expected: u16) -> serde_json::Value {
    assert_eq!(status, expected, "{body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
}
