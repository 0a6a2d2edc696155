//! The disk: requests that its task takes, and the client that has them answered.

use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use nbd_client::{Client, Durability, Error, Export, RequestError, Store, TakenBack};
use vdpa::blk::{Header, ID_LEN};
use vdpa_vduse::{Job, Rest, Task};
use virtio::blk::S;

use crate::request::{Source, Wish, understand};
use crate::{QUEUE, REQUESTS};

/// A disk on an NBD server.
#[derive(Debug)]
pub struct NbdDevice {
    client: Client<Job>,
    task: Option<Arc<Task>>,
    id: String,
    runs: bool,
    durability: Durability,
    /// Whether somebody waits for the device to come to rest.
    rests: bool,
    /// How often that has been the case, and when it was too often in vain.
    attempts: u64,
    refused: bool,
    /// Whether the bus has done with the device, so that it needs no server.
    is_parted: bool,
}

impl NbdDevice {
    /// A disk on the export of this name.
    #[must_use]
    pub fn new(export: &str) -> Self {
        Self {
            client: Client::new(export, REQUESTS),
            task: None,
            id: export.into(),
            runs: false,
            durability: Durability::Cached,
            rests: false,
            attempts: 0,
            refused: false,
            is_parted: false,
        }
    }

    /// The device has been made, and this is its task.
    pub fn begin(&mut self, task: Arc<Task>) {
        self.task = Some(task);
    }

    /// What speaks with the server, for all but its bytes.
    pub fn client(&mut self) -> &mut Client<Job> {
        &mut self.client
    }

    /// The export, once a server has described it.
    #[must_use]
    pub fn export(&self) -> Option<Export> {
        self.client.export()
    }

    /// Takes what the server has sent.
    ///
    /// # Errors
    /// As [`Client::receive`].
    pub fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<(), Error> {
        let received = self.client.receive(bytes, now, &mut jobs(&self.task));
        self.take();
        received
    }

    /// What is to be sent.
    ///
    /// # Errors
    /// As [`Client::transmit`].
    pub fn transmit(&mut self, room: &mut [u8], now: Duration) -> Result<usize, Error> {
        self.client.transmit(room, now, &mut jobs(&self.task))
    }

    /// The connection has ended.
    pub fn disconnected(&mut self, error: Option<Error>) {
        self.client.disconnected(error, &mut jobs(&self.task));
        self.take();
    }

    /// Whether a server is needed: the bus may use the device, or something does not last yet.
    #[must_use]
    pub fn needs_server(&mut self) -> bool {
        !self.is_parted || !self.client.rest()
    }

    /// Which attempt to come to rest is under way, if one is.
    #[must_use]
    pub fn resting(&self) -> Option<u64> {
        self.rests.then_some(self.attempts)
    }

    /// This attempt to come to rest has taken too long.
    pub fn refuse_rest(&mut self, attempt: u64) {
        if self.resting() == Some(attempt)
            && let Some(task) = &self.task
        {
            self.refused = true;
            task.wake();
        }
    }

    pub(crate) fn start(&mut self, durability: Durability) {
        self.runs = true;
        self.durability = durability;
    }

    pub(crate) fn stop(&mut self) {
        self.runs = false;
        self.rests = false;
        self.refused = false;
        self.client.abandon();
    }

    pub(crate) fn let_go(&mut self) {
        self.client.abandon();
    }

    pub(crate) fn attached(&mut self) {
        self.is_parted = false;
    }

    pub(crate) fn detached(&mut self) {
        self.is_parted = true;
        self.part();
    }

    /// Nothing is under way, and what was acknowledged lasts: what another disk on this export does
    /// is never undone from here.
    pub(crate) fn rest(&mut self) -> Rest {
        if !self.rests {
            self.rests = true;
            self.attempts += 1;
        }
        let rest = if self.client.rest() {
            Rest::Reached
        } else if self.refused {
            Rest::Refused
        } else {
            return Rest::Pending;
        };
        self.rests = false;
        self.refused = false;
        rest
    }

    /// Takes leave of the server, once nothing is left to tell it.
    fn part(&mut self) {
        if self.is_parted && self.client.rest() {
            self.client.leave();
        }
    }

    /// Takes requests, and shows the driver what is done.
    pub(crate) fn take(&mut self) {
        self.part();
        let Some(task) = self.task.clone() else {
            return;
        };
        // A driver that takes its queue back meanwhile says so by a message.
        while self.runs && self.client.has_room() {
            let Ok(Some(job)) = task.take(QUEUE) else {
                break;
            };
            self.start_job(&task, job);
        }
        let _ = task.flush(QUEUE);
        if self.rests && self.client.rest() {
            task.wake();
        }
    }

    fn start_job(&mut self, task: &Task, job: Job) {
        let mut jobs = Jobs(Some(task));
        match understand(&OfTask(task, job), self.durability) {
            Ok(Wish::Command(command)) => self.client.submit(job, command, &mut jobs),
            Ok(Wish::Id) => {
                let told = self.tell_id(task, job);
                jobs.finish(job, told);
            }
            Err(error) => jobs.finish(job, Err(error)),
        }
    }

    fn tell_id(&self, task: &Task, job: Job) -> Result<(), RequestError> {
        let mut id = [0; ID_LEN];
        for (to, from) in id.iter_mut().zip(self.id.bytes()) {
            *to = from;
        }
        let room = job.writable().saturating_sub(1).min(ID_LEN as u64);
        let written = task.write(job, 0, &id[..room as usize]);
        written.map(|_| ()).map_err(|_| RequestError::Io)
    }
}

/// A request that the task has.
struct OfTask<'t>(&'t Task, Job);

impl Source for OfTask<'_> {
    fn readable(&self) -> u64 {
        self.1.readable()
    }

    fn writable(&self) -> u64 {
        self.1.writable()
    }

    fn read<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let read = self.0.read(self.1, offset, &mut bytes);
        (read == Ok(N)).then_some(bytes)
    }
}

/// The requests that the task has.
struct Jobs<'t>(Option<&'t Task>);

fn jobs(task: &Option<Arc<Task>>) -> Jobs<'_> {
    Jobs(task.as_deref())
}

impl Store<Job> for Jobs<'_> {
    fn fetch(&mut self, job: Job, offset: u64, bytes: &mut [u8]) -> Result<(), TakenBack> {
        let task = self.0.ok_or(TakenBack)?;
        let copied = task.read(job, Header::LEN as u64 + offset, bytes);
        if copied == Ok(bytes.len()) {
            Ok(())
        } else {
            Err(TakenBack)
        }
    }

    fn put(&mut self, job: Job, offset: u64, bytes: &[u8]) -> Result<(), TakenBack> {
        let task = self.0.ok_or(TakenBack)?;
        let copied = task.write(job, offset, bytes);
        if copied == Ok(bytes.len()) {
            Ok(())
        } else {
            Err(TakenBack)
        }
    }

    /// The last byte that can be written is the status.
    fn finish(&mut self, job: Job, outcome: Result<(), RequestError>) {
        let Some(task) = self.0 else { return };
        let status = match outcome {
            Ok(()) => S::Ok,
            Err(RequestError::Unsupported) => S::Unsupp,
            Err(_) => S::Ioerr,
        };
        if let Some(place) = job.writable().checked_sub(1) {
            let _ = task.write(job, place, &[status.into()]);
        }
        let _ = task.complete(job);
    }
}
