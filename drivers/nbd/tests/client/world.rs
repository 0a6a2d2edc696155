//! A client with its requests, and a server that comes and goes.

use std::time::Duration;

use nbd_client::{Client, Command, Error, RequestError, Store, TakenBack};

use crate::server::{Disk, Lie, Options, Server};

/// The buffers of requests, by number, and how they have ended.
#[derive(Default)]
pub struct Requests {
    pub buffers: Vec<Vec<u8>>,
    pub outcomes: Vec<Option<Result<(), RequestError>>>,
    /// The bytes of this one cannot be had.
    pub gone: Option<usize>,
}

impl Store<usize> for Requests {
    fn fetch(&mut self, request: usize, offset: u64, bytes: &mut [u8]) -> Result<(), TakenBack> {
        if self.gone == Some(request) {
            return Err(TakenBack);
        }
        let from = &self.buffers[request][offset as usize..];
        bytes.copy_from_slice(&from[..bytes.len()]);
        Ok(())
    }

    fn put(&mut self, request: usize, offset: u64, bytes: &[u8]) -> Result<(), TakenBack> {
        if self.gone == Some(request) {
            return Err(TakenBack);
        }
        let room = &mut self.buffers[request][offset as usize..];
        room[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self, request: usize, outcome: Result<(), RequestError>) {
        let before = self.outcomes[request].replace(outcome);
        assert_eq!(before, None, "a request ends once");
    }
}

pub struct World {
    pub client: Client<usize>,
    pub requests: Requests,
    pub server: Option<Server>,
    pub disk: Disk,
    pub options: Options,
    pub now: Duration,
}

impl World {
    pub fn new(len: usize, options: Options) -> Self {
        Self {
            client: Client::new("disk", 16),
            requests: Requests::default(),
            server: None,
            disk: Disk::new(len),
            options,
            now: Duration::ZERO,
        }
    }

    pub fn connect(&mut self) {
        self.server = Some(Server::new(self.options));
        self.client.connected(self.now);
    }

    /// The server's process dies, and what it has not flushed with it.
    pub fn kill(&mut self, error: Option<Error>) {
        self.server = None;
        self.disk.die();
        self.client.disconnected(error, &mut self.requests);
    }

    pub fn submit(&mut self, command: Command, buffer: Vec<u8>) -> usize {
        let number = self.requests.buffers.len();
        self.requests.buffers.push(buffer);
        self.requests.outcomes.push(None);
        self.client.submit(number, command, &mut self.requests);
        number
    }

    /// Passes some bytes each way.
    pub fn exchange(&mut self, room: usize) -> Result<bool, Error> {
        let Some(server) = &mut self.server else {
            return Ok(false);
        };
        let mut bytes = vec![0; room];
        let sent = self
            .client
            .transmit(&mut bytes, self.now, &mut self.requests)?;
        server.receive(&bytes[..sent], &self.disk);
        let count = server.output.len().min(room);
        let answer: Vec<u8> = server.output.drain(..count).collect();
        self.client.receive(&answer, self.now, &mut self.requests)?;
        Ok(sent > 0 || count > 0)
    }

    /// Passes and serves everything, with the same server.
    pub fn settle(&mut self) -> Result<(), Error> {
        for _ in 0..100_000 {
            while self.exchange(8192)? {}
            let Some(server) = &mut self.server else {
                return Ok(());
            };
            if server.pending.is_empty() || self.options.lie == Lie::Silence {
                return Ok(());
            }
            server.serve(0, 100, &mut self.disk);
        }
        panic!("it does not come to an end");
    }
}
