//! Little memory: nothing that clients or operators do ends the machine, and what cannot be had is
//! said.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qemu::device::{Net, NetBackend};
use qemu::guest::Guest;
use qemu::machine::{Machine, Memory};
use tests::noise;
use tests::web::connect;

use crate::http::{ANSWER, Files, sha256};

system_tests![
    eight_mib_serve_sixteen_slow_readers_and_everybody_else,
    sixteen_mib_boot_with_what_fits_of_twenty_one_cards,
    simulated_devices_are_refused_when_memory_is_short_and_the_site_goes_on,
    the_usual_machine_has_room_for_a_disk_of_64_mib,
];

/// How long the slow readers read.
const SLOWNESS: Duration = Duration::from_secs(20);
/// An answer to somebody else that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(10);
/// A reader that gets nothing for so long gets nothing any more.
const READERS_PATIENCE: Duration = Duration::from_secs(60);
/// More bytes than a reader gets at once.
const PARTS: usize = 4096;

fn mib(mib: u32) -> impl FnOnce(Guest) -> Guest {
    move |guest| Guest {
        memory: Memory::from_mib(mib).unwrap(),
        machine: Machine::Pc,
        ..guest
    }
}

/// Asks for `path` and takes 4 KiB of the answer now and then, until `ended`; once it is clear that
/// the answer comes in parts, counts one more in `served`. Returns the number of bytes.
fn read_slowly(port: u16, path: &str, ended: &AtomicBool, served: &AtomicUsize) -> usize {
    let mut stream = connect(port).unwrap();
    stream.set_read_timeout(Some(READERS_PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let (mut piece, mut sum) = ([0; 4096], 0);
    while !ended.load(Ordering::Relaxed) {
        match stream.read(&mut piece) {
            Ok(count @ 1..) => {
                if (sum..sum + count).contains(&PARTS) {
                    served.fetch_add(1, Ordering::Relaxed);
                }
                sum += count;
            }
            _ => break,
        }
        thread::sleep(Duration::from_millis(500));
    }
    sum
}

fn eight_mib_serve_sixteen_slow_readers_and_everybody_else() {
    let bytes = noise::bytes(31, 24 << 20);
    let name = |number: usize| {
        format!("long/a file with a rather long name and the number {number:04}.txt")
    };
    let files = (0..3000).fold(Files::new(), |files, number| {
        files.with(&name(number), b"x")
    });
    let (mut site, _image) = files.with("large.bin", &bytes).serve_on(mib(8));
    let port = site.client().port();
    let (status, listing) = site.client().body("/files/long/", &[]).unwrap();
    let listing = String::from_utf8(listing).unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        listing.matches("a file with a rather long name").count(),
        6000 / 2
    );
    assert!(listing.contains("3000 files"), "the footer");
    let ended = AtomicBool::new(false);
    let (served, read) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..16 {
            let path = if number % 2 == 0 {
                "/files/long/"
            } else {
                "/files/large.bin"
            };
            let (ended, served, read) = (&ended, &served, &read);
            scope.spawn(move || {
                let count = read_slowly(port, path, ended, served);
                assert!(count > PARTS, "{path}: {count}");
                read.fetch_add(1, Ordering::Relaxed);
            });
        }
        let start = Instant::now();
        while start.elapsed() < SLOWNESS || served.load(Ordering::Relaxed) < 16 {
            if start.elapsed() > SLOWNESS + READERS_PATIENCE {
                // The readers say how far they have come.
                break;
            }
            let asked = Instant::now();
            let status = site.client().get("/api/status", &[]).unwrap().status();
            assert_eq!(status, 200);
            assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
            thread::sleep(Duration::from_secs(1));
        }
        let (status, body) = site.client().body("/files/large.bin", &[]).unwrap();
        assert_eq!((status, sha256(&body)), (200, sha256(&bytes)));
        ended.store(true, Ordering::Relaxed);
    });
    assert_eq!(read.into_inner(), 16, "nobody was cut off");
    assert!(site.is_running());
}

fn sixteen_mib_boot_with_what_fits_of_twenty_one_cards() {
    let (mut site, _image) = Files::new().with("a", b"x").serve_on(|guest| {
        let mut guest = mib(16)(guest);
        let more = || Net::new(NetBackend::User { forwards: vec![] });
        guest.nets.extend((0..20).map(|_| more()));
        guest
    });
    let (status, body) = site.client().send("GET", "/files/a", &[], "").unwrap();
    assert_eq!((status, body.as_str()), (200, "x"));
    assert_eq!(site.client().get("/", &[]).unwrap().status(), 200);
    assert!(site.is_running());
}

fn simulated_devices_are_refused_when_memory_is_short_and_the_site_goes_on() {
    let (mut site, _image) = Files::new().with("a", b"x").serve_on(mib(8));
    let mut refused = None;
    for number in 0..200 {
        let add = format!("vdpa dev add name c{number} mgmtdev vdpasim_net");
        site.type_line(&add, "> vdpa dev add", ANSWER).unwrap();
        let show = format!("vdpa dev show c{number}");
        let line = site
            .type_line(&show, &format!("c{number}: "), ANSWER)
            .unwrap();
        if line.contains("error: ") {
            refused = Some((number, line));
            break;
        }
    }
    let (number, line) = refused.expect("memory ends before 200 cards are there");
    assert!(number > 0, "there is memory for one card");
    assert!(
        line.contains("not enough memory") && line.contains("KiB are left"),
        "{line}"
    );
    let add = "vdpa dev add name disk mgmtdev vdpasim_blk capacity 64M";
    site.type_line(add, "error: disk: there is not enough memory", ANSWER)
        .unwrap();
    let (status, body) = site.client().send("GET", "/files/a", &[], "").unwrap();
    assert_eq!((status, body.as_str()), (200, "x"));
    assert_eq!(site.client().get("/", &[]).unwrap().status(), 200);
    site.type_line("vdpa dev del c0", "> vdpa dev del", ANSWER)
        .unwrap();
    assert!(site.is_running());
}

fn the_usual_machine_has_room_for_a_disk_of_64_mib() {
    let (mut site, _image) = Files::new().serve();
    let add = "vdpa dev add name spare mgmtdev vdpasim_blk capacity 64M";
    site.type_line(add, "> vdpa dev add", ANSWER).unwrap();
    site.type_line(
        "vdpa dev config show spare",
        "spare: capacity 131072",
        ANSWER,
    )
    .unwrap();
    let again = add.replace("spare", "other");
    let refused = site.type_line(&again, "error: other: ", ANSWER).unwrap();
    assert!(refused.contains("KiB are left"), "{refused}");
    assert!(site.is_running());
}
