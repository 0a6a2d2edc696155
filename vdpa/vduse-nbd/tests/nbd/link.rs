//! A connection between a disk and a server in memory.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embassy_futures::select::select;
use vdpa::Platform;
use vduse_nbd::{NbdDevice, Signals};

use crate::server::{Disk, Options, Server};

/// All that a server can do.
pub const ALL: u16 = 0x6d;
const TICK: Duration = Duration::from_millis(1);
const ROOM: usize = 64 << 10;

pub fn options(flags: u16) -> Options {
    Options {
        structured: true,
        go: true,
        flags,
        max: 1 << 20,
        lie: Default::default(),
    }
}

/// A server, which is there or not, and slow or not. What it has not flushed dies with it.
pub struct Link {
    pub disk: Mutex<Disk>,
    options: Options,
    is_up: AtomicBool,
    answers: AtomicBool,
    /// The commands that were carried out, and their flags.
    pub commands: Mutex<Vec<(u16, u16)>>,
    /// How often a client has said that nothing more comes.
    farewells: AtomicUsize,
    connections: AtomicUsize,
}

impl Link {
    pub fn new(len: usize, flags: u16) -> Arc<Self> {
        Self::to(Disk::new(len), flags)
    }

    pub fn to(disk: Disk, flags: u16) -> Arc<Self> {
        Arc::new(Self {
            disk: Mutex::new(disk),
            options: options(flags),
            is_up: AtomicBool::new(true),
            answers: AtomicBool::new(true),
            commands: Mutex::default(),
            farewells: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        })
    }

    pub fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::Relaxed);
    }

    pub fn let_answer(&self, answers: bool) {
        self.answers.store(answers, Ordering::Relaxed);
    }

    pub fn farewells(&self) -> usize {
        self.farewells.load(Ordering::Relaxed)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connects, and connects again.
    pub async fn run(
        self: Arc<Self>,
        device: &'static spin::Mutex<NbdDevice>,
        signals: &'static Signals,
        platform: Arc<dyn Platform>,
    ) {
        loop {
            let wanted = device.lock().needs_server();
            if wanted && self.is_up.load(Ordering::Relaxed) {
                self.connections.fetch_add(1, Ordering::Relaxed);
                let error = self.converse(device, signals, &platform).await;
                self.disk.lock().unwrap().die();
                device.lock().disconnected(error);
            }
            platform.sleep(TICK).await;
        }
    }

    async fn converse(
        &self,
        device: &spin::Mutex<NbdDevice>,
        signals: &Signals,
        platform: &Arc<dyn Platform>,
    ) -> Option<nbd_client::Error> {
        let mut server = Server::new(self.options);
        device.lock().client().connected(platform.now());
        let mut room = vec![0; ROOM];
        let mut which = 0_usize;
        while self.is_up.load(Ordering::Relaxed) && !server.left {
            let now = platform.now();
            let sent = device.lock().transmit(&mut room, now);
            let sent = match sent {
                Ok(sent) => sent,
                Err(error) => return Some(error),
            };
            let answers = self.answers.load(Ordering::Relaxed);
            {
                let mut disk = self.disk.lock().unwrap();
                server.receive(&room[..sent], &disk);
                if answers && !server.pending.is_empty() {
                    // Not in the order in which they have come.
                    which = which.wrapping_mul(31).wrapping_add(7);
                    let place = which % server.pending.len();
                    let (command, flags, ..) = server.pending[place];
                    self.commands.lock().unwrap().push((command, flags));
                    server.serve(place, 100, &mut disk);
                }
            }
            let bytes = std::mem::take(&mut server.output);
            if let Err(error) = device.lock().receive(&bytes, now) {
                return Some(error);
            }
            if sent == 0 && bytes.is_empty() {
                select(signals.kick.wait(), platform.sleep(TICK)).await;
            }
        }
        self.farewells
            .fetch_add(usize::from(server.left), Ordering::Relaxed);
        None
    }
}
