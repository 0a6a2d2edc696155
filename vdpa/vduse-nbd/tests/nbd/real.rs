//! Servers that people have, killed and started again under load, whose unflushed data die with
//! them: what was acknowledged is on the image after the next flush.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nbd_client::Error;
use qemu::prepare::package::{self, Names};
use vdpa::Features;
use virtio::blk::F;

use crate::driver::{DISCARD, Driver, FLUSH, IN, OK, OUT, WRITE_ZEROES, range, request};
use crate::world::{Remote, World};

const LEN: usize = 2 << 20;
const SECTORS: usize = LEN / 512;
/// The most sectors of a request.
const LONGEST: usize = 40;
/// How many requests there are, and after how many of them the server is killed.
const REQUESTS: usize = 500;
const LIFE: usize = 125;
const IN_FLIGHT: usize = 24;
const PATIENCE: Duration = Duration::from_secs(60);
const ROOM: usize = 64 << 10;
/// While the server has nothing to say.
const PAUSE: Duration = Duration::from_micros(50);

/// A server of NBD.
#[derive(Clone, Copy)]
struct Kind {
    program: &'static str,
    /// Debian's package with it.
    package: &'static str,
    /// The format of its image, of which a part is in the server's memory.
    format: &'static str,
    arguments: fn(port: &str, image: &str) -> Vec<String>,
}

/// The tables of the image are kept in memory until a flush.
const QEMU_NBD: Kind = Kind {
    program: "qemu-nbd",
    package: "qemu-utils",
    format: "qcow2",
    arguments: |port, image| {
        let options = "-f qcow2 -t --discard=unmap -e 4 -b 127.0.0.1 -x disk -p";
        words(options, &[port, image])
    },
};

/// All data are kept outside of the image until a flush.
const NBDKIT: Kind = Kind {
    program: "nbdkit",
    package: "nbdkit",
    format: "raw",
    arguments: |port, image| {
        let options = "-f -i 127.0.0.1 --filter=cache file cache=writeback -p";
        words(options, &[port, image])
    },
};

fn words(options: &str, others: &[&str]) -> Vec<String> {
    let words = options.split_whitespace().chain(others.iter().copied());
    words.map(Into::into).collect()
}

/// A server that runs until it is killed.
struct Process(Child);

impl Process {
    fn start(kind: Kind, port: u16, image: &Path) -> Self {
        let words = (kind.arguments)(&port.to_string(), image.to_str().unwrap());
        let mut command = Command::new(kind.program);
        Self(command.args(words).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL; both fail if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The connection to it.
struct Wire {
    port: u16,
    stream: Option<TcpStream>,
    unsent: Vec<u8>,
    begin: Instant,
}

impl Wire {
    fn end(&mut self, remote: Remote, error: Option<Error>) {
        self.stream = None;
        self.unsent.clear();
        remote.device.lock().disconnected(error);
    }

    /// Passes what there is, both ways.
    fn pass(&mut self, remote: Remote) {
        let now = self.begin.elapsed();
        let Some(stream) = &mut self.stream else {
            let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else {
                std::thread::sleep(Duration::from_millis(5));
                return;
            };
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            self.stream = Some(stream);
            remote.device.lock().client().connected(now);
            return;
        };
        let mut device = remote.device.lock();
        if self.unsent.is_empty() {
            self.unsent.resize(ROOM, 0);
            let count = device.transmit(&mut self.unsent, now);
            self.unsent.truncate(count.unwrap());
        }
        let mut bytes = [0; ROOM];
        let sent = match stream.write(&self.unsent) {
            Ok(count) => {
                self.unsent.drain(..count);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(None),
        };
        let passed = sent.and_then(|()| match stream.read(&mut bytes) {
            Ok(0) => Err(None),
            Ok(count) => device.receive(&bytes[..count], now).map_err(Some),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(PAUSE);
                Ok(())
            }
            Err(_) => Err(None),
        });
        drop(device);
        if let Err(error) = passed {
            assert!(
                matches!(error, None | Some(Error::Leaving)),
                "an honest server: {error:?}"
            );
            self.end(remote, error);
        }
    }
}

/// What a sector holds, as far as it is known.
#[derive(Clone, Copy, PartialEq)]
enum Sector {
    Filled(u8),
    /// It was discarded.
    Anything,
}

/// A request under way: where, and what is there when it is done.
struct Open {
    number: u64,
    sectors: std::ops::Range<usize>,
    after: Option<Sector>,
}

struct Load {
    world: World,
    remote: Remote,
    wire: Wire,
    driver: Driver,
    model: Vec<Sector>,
    open: Vec<Open>,
    random: u64,
}

impl Load {
    fn next(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) as usize % end
    }

    /// Lets everything go on for a moment.
    fn turn(&mut self) {
        self.wire.pass(self.remote);
        self.world.platform.run_until_stalled();
        let mut done = Vec::new();
        for open in &self.open {
            if let Some(answer) = self.driver.answer(open.number) {
                done.push((open.number, answer));
            }
        }
        for (number, answer) in done {
            assert_eq!(answer.status(), OK);
            let place = self.open.iter().position(|it| it.number == number);
            let open = self.open.swap_remove(place.unwrap());
            match open.after {
                Some(after) => self.model[open.sectors].fill(after),
                None => {
                    let found = answer.bytes.chunks_exact(512);
                    for (sector, found) in self.model[open.sectors].iter().zip(found) {
                        check(*sector, found);
                    }
                }
            }
        }
    }

    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{} are open", self.open.len());
            self.turn();
        }
    }

    /// Something that nothing under way is in the way of.
    fn submit(&mut self, can_flush: bool) {
        let start = self.next(SECTORS - LONGEST);
        let sectors = start..start + 1 + self.next(LONGEST);
        let is_free = |it: &Open| it.sectors.end <= start || sectors.end <= it.sectors.start;
        if !self.open.iter().all(is_free) {
            return;
        }
        let (sector, count) = (start as u64, sectors.len());
        let value = 1 + self.next(255) as u8;
        let (bytes, writable, after) = match self.next(20) {
            0 if can_flush => {
                let number = self.driver.submit(&request(FLUSH, 0, &[]), 1);
                self.open.push(Open {
                    number,
                    sectors: 0..0,
                    after: None,
                });
                return;
            }
            1..4 => {
                let flags = u32::from(value) & 1;
                let range = range(sector, count as u32, flags);
                let zeroes = Sector::Filled(0);
                (request(WRITE_ZEROES, 0, &range), 1, Some(zeroes))
            }
            4 => {
                let range = range(sector, count as u32, 0);
                (request(DISCARD, 0, &range), 1, Some(Sector::Anything))
            }
            5..9 => (request(IN, sector, &[]), count * 512 + 1, None),
            _ => {
                let data = vec![value; count * 512];
                (request(OUT, sector, &data), 1, Some(Sector::Filled(value)))
            }
        };
        let number = self.driver.submit(&bytes, writable);
        self.open.push(Open {
            number,
            sectors,
            after,
        });
    }
}

fn check(sector: Sector, found: &[u8]) {
    if let Sector::Filled(value) = sector {
        assert!(found.iter().all(|byte| *byte == value), "not {value}");
    }
}

/// Requests, while the server dies again and again. In the end it is killed once more, and what is
/// on the image is compared with what was acknowledged.
fn outlive(kind: Kind, features: F) {
    if let Err(missing) = package::ensure(kind.program, &Names::debian(kind.package)) {
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        println!("skipped: {missing}");
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let image = files.path().join("image");
    run(
        "qemu-img",
        &["create", "-q", "-f", kind.format],
        &image,
        &[&LEN.to_string()],
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut process = Process::start(kind, port, &image);

    let (world, remote) = (World::new(), Remote::new());
    let mut wire = Wire {
        port,
        stream: None,
        unsent: Vec::new(),
        begin: Instant::now(),
    };
    while remote.device.lock().export().is_none() {
        assert!(wire.begin.elapsed() < PATIENCE, "no server comes");
        wire.pass(remote);
    }
    world.offer_known("nbd", remote);
    let features = Features::from(features | F::DISCARD | F::WRITE_ZEROES);
    let driver = world
        .platform
        .block_on(Driver::start(&world, "nbd", features));
    let can_flush = features.contains(F::FLUSH);
    let mut load = Load {
        world,
        remote,
        wire,
        driver,
        model: vec![Sector::Filled(0); SECTORS],
        open: Vec::new(),
        random: 0x2545_f491_4f6c_dd1d,
    };
    for number in 1..=REQUESTS {
        load.until(|load| load.open.len() < IN_FLIGHT);
        load.submit(can_flush);
        if number % LIFE == 0 {
            drop(process);
            // The client notices before there is another one.
            load.until(|load| load.wire.stream.is_none());
            process = Process::start(kind, port, &image);
        }
    }
    load.until(|load| load.open.is_empty());
    if can_flush {
        let answer = load.driver.submit(&request(FLUSH, 0, &[]), 1);
        load.open.push(Open {
            number: answer,
            sectors: 0..0,
            after: None,
        });
        load.until(|load| load.open.is_empty());
    }
    drop(process);
    let raw = files.path().join("raw");
    let output = raw.to_str().unwrap();
    run(
        "qemu-img",
        &["convert", "-f", kind.format, "-O", "raw"],
        &image,
        &[output],
    );
    let bytes = std::fs::read(raw).unwrap();
    for (sector, found) in load.model.iter().zip(bytes.chunks_exact(512)) {
        check(*sector, found);
    }
}

fn run(program: &str, before: &[&str], file: &Path, after: &[&str]) {
    let mut command = Command::new(program);
    let status = command.args(before).arg(file).args(after).status().unwrap();
    assert!(status.success(), "{program}");
}

#[test]
fn qemu_nbd_loses_nothing_that_was_flushed() {
    outlive(QEMU_NBD, F::FLUSH);
}

#[test]
fn nbdkit_loses_nothing_that_was_flushed() {
    outlive(NBDKIT, F::FLUSH);
}

/// Every write is there as soon as it is acknowledged.
#[test]
fn qemu_nbd_loses_nothing_of_who_cannot_flush() {
    outlive(QEMU_NBD, F::empty());
}

#[test]
fn nbdkit_loses_nothing_of_who_cannot_flush() {
    outlive(NBDKIT, F::empty());
}
