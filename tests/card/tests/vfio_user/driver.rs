//! A driver of the card that knows the registers and split rings, as in VIRTIO 1.2, and nothing
//! else.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::client::{CONFIG, Client};
use crate::program::PATIENCE;

/// Where the client has its memory for the card, and how much.
pub const BASE: u64 = 0x10_0000;
pub const MEMORY: u64 = 1 << 20;

/// Descriptors of a queue, and the bytes of memory that each has: table, rings, data.
const SIZE: u16 = 8;
const QUEUE: u64 = 0x8000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
pub const DATA: u64 = 0x4000;

const NEXT: u16 = 1;
const WRITABLE: u16 = 2;

const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;

/// Registers of the common configuration.
const SELECT: u64 = 0x08;
const FEATURES: u64 = 0x0c;
const CONFIG_VECTOR: u64 = 0x10;
pub const STATUS: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const ADDRESSES: u64 = 0x20;

/// Memory that a client shares.
pub struct Memory(File);

impl Memory {
    pub fn new() -> Self {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("guest", flags).unwrap();
        ftruncate(&file, MEMORY).unwrap();
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        Self(file.into())
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.0.write_all_at(bytes, address - BASE).unwrap();
    }

    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact_at(&mut bytes, address - BASE).unwrap();
        bytes
    }
}

/// A part of a request: data for the card, or room for what it writes.
pub enum Part<'a> {
    For(&'a [u8]),
    From(u32),
}

/// What the live-migration block has for each queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// 32 bits, and a count of the pairs or queues.
    Whole,
    /// 16 bits.
    Half,
}

/// A card that works, one queue at a time.
pub struct Driver<'a> {
    pub client: &'a mut Client,
    pub memory: &'a Memory,
    counters: Vec<File>,
    words: Words,
    bar: u32,
    common: u64,
    notify: u64,
    multiplier: u64,
    /// How many requests each queue has had.
    requests: Vec<u16>,
}

impl<'a> Driver<'a> {
    /// Finds everything, and arms a counter for each vector.
    pub fn new(client: &'a mut Client, memory: &'a Memory, vectors: usize, words: Words) -> Self {
        let counter = || File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let counters: Vec<File> = (0..vectors).map(|_| counter()).collect();
        let fds: Vec<BorrowedFd<'_>> = counters.iter().map(AsFd::as_fd).collect();
        client.arm(&fds).unwrap();
        let config = client.read(CONFIG, 0, 256).unwrap();
        // Memory and bus master.
        client.write(CONFIG, 4, &[6, 0]).unwrap();
        let mut driver = Self {
            client,
            memory,
            counters,
            words,
            bar: 0,
            common: 0,
            notify: 0,
            multiplier: 0,
            requests: vec![0; 8],
        };
        driver.find(&config);
        driver
    }

    fn find(&mut self, config: &[u8]) {
        let mut at = usize::from(config[0x34]);
        while at != 0 {
            let word = |offset| u32::from_le_bytes(config[at + offset..][..4].try_into().unwrap());
            match (config[at], config[at + 3]) {
                (9, 1) => {
                    self.bar = config[at + 4].into();
                    self.common = word(8).into();
                }
                (9, 2) => {
                    self.notify = word(8).into();
                    self.multiplier = word(16).into();
                }
                (0x11, _) => {
                    let control = [config[at + 2], config[at + 3] | 0x80];
                    let place = u64::try_from(at).unwrap() + 2;
                    self.client.write(CONFIG, place, &control).unwrap();
                }
                _ => {}
            }
            at = config[at + 1].into();
        }
    }

    pub fn set(&mut self, register: u64, bytes: &[u8]) {
        let place = self.common + register;
        self.client.write(self.bar, place, bytes).unwrap();
    }

    pub fn get<const N: usize>(&mut self, register: u64) -> [u8; N] {
        let place = self.common + register;
        let count = u32::try_from(N).unwrap();
        let bytes = self.client.read(self.bar, place, count).unwrap();
        bytes.try_into().unwrap()
    }

    /// Brings the card up as far as the queues.
    pub fn begin(&mut self) {
        self.set(STATUS, &[0]);
        assert_eq!(self.get(STATUS), [0]);
        self.set(STATUS, &[1]);
        self.set(STATUS, &[3]);
        // VERSION_1 and ACCESS_PLATFORM.
        for (half, features) in [(0_u32, 0_u32), (1, 3)] {
            self.set(SELECT, &half.to_le_bytes());
            self.set(FEATURES, &features.to_le_bytes());
        }
        self.set(STATUS, &[3 | FEATURES_OK]);
        assert_eq!(self.get(STATUS), [3 | FEATURES_OK]);
        self.set(CONFIG_VECTOR, &0_u16.to_le_bytes());
        assert_eq!(self.get(CONFIG_VECTOR), 0_u16.to_le_bytes());
    }

    /// Tells the live-migration block where a queue of the first pair starts, and that there is one
    /// pair or queue.
    fn place(&mut self, queue: u16) {
        let word = 0x20 + 4 * u64::from(queue);
        if self.words == Words::Whole {
            self.client.write(4, 0x28, &1_u32.to_le_bytes()).unwrap();
            self.client.write(4, word, &[0; 4]).unwrap();
        } else {
            self.client.write(4, word, &[0; 2]).unwrap();
        }
    }

    /// Sets a queue up with the vector after its number.
    pub fn queue(&mut self, queue: u16) {
        self.place(queue);
        let at = BASE + u64::from(queue) * QUEUE;
        self.memory.write(at, &[0; DATA as usize]);
        self.requests[usize::from(queue)] = 0;
        self.set(QUEUE_SELECT, &queue.to_le_bytes());
        self.set(QUEUE_SIZE, &SIZE.to_le_bytes());
        for (register, address) in (ADDRESSES..).step_by(4).zip(
            [at, at + AVAILABLE, at + USED]
                .into_iter()
                .flat_map(|address| [address & 0xffff_ffff, address >> 32]),
        ) {
            let word = u32::try_from(address).unwrap();
            self.set(register, &word.to_le_bytes());
        }
        self.set(QUEUE_VECTOR, &(queue + 1).to_le_bytes());
        assert_eq!(self.get(QUEUE_VECTOR), (queue + 1).to_le_bytes());
        self.set(QUEUE_ENABLE, &1_u16.to_le_bytes());
    }

    pub fn go(&mut self) {
        self.set(STATUS, &[3 | FEATURES_OK | DRIVER_OK]);
    }

    /// Where the data of a queue is.
    pub fn data(queue: u16) -> u64 {
        BASE + u64::from(queue) * QUEUE + DATA
    }

    /// Puts one request into a queue, its parts one after the other in the queue's data, and rings.
    pub fn offer(&mut self, queue: u16, parts: &[Part<'_>]) {
        let at = BASE + u64::from(queue) * QUEUE;
        let mut data = at + DATA;
        for (index, part) in (0_u16..).zip(parts) {
            let (len, writable) = match part {
                Part::For(bytes) => {
                    self.memory.write(data, bytes);
                    (u32::try_from(bytes.len()).unwrap(), 0)
                }
                Part::From(len) => (*len, WRITABLE),
            };
            let last = usize::from(index) + 1 == parts.len();
            let next = if last { 0 } else { NEXT };
            let descriptor = [
                &data.to_le_bytes()[..],
                &len.to_le_bytes(),
                &(writable | next).to_le_bytes(),
                &(index + 1).to_le_bytes(),
            ]
            .concat();
            self.memory.write(at + 16 * u64::from(index), &descriptor);
            data += u64::from(len);
        }
        // The ring's entries are all 0: each request begins with the first descriptor.
        let requests = &mut self.requests[usize::from(queue)];
        *requests += 1;
        self.memory
            .write(at + AVAILABLE + 2, &requests.to_le_bytes());
        self.ring(queue);
    }

    pub fn ring(&mut self, queue: u16) {
        let place = self.notify + u64::from(queue) * self.multiplier;
        self.client
            .write(self.bar, place, &queue.to_le_bytes())
            .unwrap();
    }

    /// How many requests of a queue are used.
    pub fn used(&self, queue: u16) -> u16 {
        let at = BASE + u64::from(queue) * QUEUE + USED + 2;
        u16::from_le_bytes(self.memory.read(at, 2).try_into().unwrap())
    }

    /// Waits for the interrupt of a queue, and checks that all of its requests are used then.
    pub fn wait(&mut self, queue: u16) {
        self.wait_for_vector(usize::from(queue) + 1);
        assert_eq!(self.used(queue), self.requests[usize::from(queue)]);
    }

    pub fn wait_for_vector(&mut self, vector: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.interrupts(vector) == 0 {
            assert!(Instant::now() < deadline, "no interrupt {vector}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// How often a vector was raised since the last look.
    pub fn interrupts(&self, vector: usize) -> u64 {
        let mut bytes = [0; 8];
        let read = (&self.counters[vector]).read_exact(&mut bytes);
        read.map_or(0, |()| u64::from_ne_bytes(bytes))
    }
}
