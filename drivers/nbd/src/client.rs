//! The client: what is asked for, what is under way, and what has been answered.

mod answers;
mod ending;
mod sending;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use self::answers::Reading;
use self::sending::Sending;
use super::command::Command;
use super::error::{Error, RequestError};
use super::export::Export;
use super::handshake::Handshake;
use super::journal::Journal;
use super::part::{Owner, Part, Progress};

/// The most bytes of data in one part.
pub(crate) const PART_MAX: u32 = 256 << 10;
/// The most bytes of a part without data.
const RANGE_MAX: u32 = 32 << 20;
/// How many parts can be under way, besides the client's own.
const PARTS: usize = 64;
/// A part that makes the journal shorter, and one that is done once more.
const OWN_PARTS: usize = 2;

/// How long a server may take for the negotiation.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long it may say nothing while something is awaited.
const SILENCE: Duration = Duration::from_secs(30);
/// How long it may take for one part.
const PATIENCE: Duration = Duration::from_secs(120);

/// A request is not there any more: who has made it has taken it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenBack;

/// Where the bytes of requests are. A request is named by a `J`.
pub trait Store<J> {
    /// Copies data of a write, from `offset` on: as many as `bytes` takes.
    ///
    /// # Errors
    /// [`TakenBack`]: the request fails, and the connection is ended, as what was sent of the write
    /// must not be completed.
    fn fetch(&mut self, request: J, offset: u64, bytes: &mut [u8]) -> Result<(), TakenBack>;

    /// Copies data that was read to `offset` of a request. Positions grow from the first byte on
    /// without gaps, except for bytes that were written before and are replaced.
    ///
    /// # Errors
    /// [`TakenBack`]: the request fails.
    fn put(&mut self, request: J, offset: u64, bytes: &[u8]) -> Result<(), TakenBack>;

    /// A request has come to its end.
    fn finish(&mut self, request: J, outcome: Result<(), RequestError>);
}

/// A client of one export, over one connection after the other.
///
/// The user calls [`connected`](Self::connected), then passes bytes with
/// [`receive`](Self::receive) and [`transmit`](Self::transmit) and looks at the
/// [`deadline`](Self::deadline). After any error, and when the connection ends by itself, it calls
/// [`disconnected`](Self::disconnected) and connects again.
///
/// # Writes and the death of a server
///
/// A request that was not answered is sent again over the next connection. Of the changes that were
/// acknowledged and not flushed, which a server may keep in memory that dies with it, the client
/// has a copy: at most 4 MiB, and it flushes by itself before they become more. They are done again,
/// in their order, before anything else is sent. So what was acknowledged stays, as long as the
/// client lives and the server keeps what it was told to flush. That needs a server that knows
/// `NBD_CMD_FLUSH`: one that does not says that there is nothing to flush.
///
/// If the server refuses such a change, something acknowledged is lost: then every request fails.
///
/// A server that cannot be reached is waited for. One that refuses the export, has another one in its
/// place, or speaks something else, eight times in a row, is no server of this disk any more: the
/// requests under way fail, and so do later ones with each more of its refusals.
///
/// A server that is only slow may still carry out what was sent over a connection that was given
/// up. NBD has nothing against that; the time limits here are long.
pub struct Client<J> {
    name: String,
    /// As the first server has described it; later ones must do the same.
    export: Option<Export>,
    phase: Phase,
    requests: Vec<Option<Request<J>>>,
    /// Requests of which a part is to be made, in their order.
    uncut: VecDeque<usize>,
    parts: Vec<Option<Part>>,
    /// Parts that are to be sent, in their order.
    unsent: VecDeque<usize>,
    sending: Option<Sending>,
    reading: Reading,
    journal: Journal,
    /// The number of the change that is done again next; `None`, if all have been.
    replay: Option<u64>,
    replay_attempts: u8,
    /// How many servers in a row have refused the export, or were none.
    refusals: u8,
    /// Whether a change that was acknowledged is lost.
    is_lost: bool,
    is_leaving: bool,
    serial: u64,
    cookies: u64,
    answers: u64,
    /// When something was last sent or received.
    progress: Duration,
}

/// What a connection is used for.
#[derive(Debug)]
enum Phase {
    /// There is none.
    Closed,
    Negotiating(Handshake),
    Open {
        structured: bool,
    },
}

/// A request that is under way.
#[derive(Debug)]
struct Request<J> {
    /// `None`, if it was taken back.
    name: Option<J>,
    command: Command,
    /// How many bytes have been made into parts.
    cut: u64,
    /// How many parts have no answer.
    open: usize,
    failed: Option<RequestError>,
    /// How many bytes from the first one on have been put.
    filled: u64,
    /// What is to be done next.
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Cutting,
    /// A flush follows, as the server cannot make the change durable by itself.
    Flushing,
    /// Everything is cut.
    Waiting,
}

impl<J: Copy> Client<J> {
    /// A client of the export `name` that has at most so many requests under way.
    #[must_use]
    pub fn new(name: &str, requests: usize) -> Self {
        Self {
            name: name.into(),
            export: None,
            phase: Phase::Closed,
            requests: (0..requests).map(|_| None).collect(),
            uncut: VecDeque::with_capacity(requests),
            parts: (0..PARTS + OWN_PARTS).map(|_| None).collect(),
            unsent: VecDeque::with_capacity(PARTS + OWN_PARTS),
            sending: None,
            reading: Reading::new(),
            journal: Journal::default(),
            replay: None,
            replay_attempts: 0,
            refusals: 0,
            is_lost: false,
            is_leaving: false,
            serial: 0,
            cookies: 0,
            answers: 0,
            progress: Duration::ZERO,
        }
    }

    /// A connection to the server has been made.
    pub fn connected(&mut self, now: Duration) {
        self.phase = Phase::Negotiating(Handshake::new(&self.name));
        self.progress = now;
    }

    /// The export, once a server has described it.
    #[must_use]
    pub fn export(&self) -> Option<Export> {
        self.export
    }

    /// Whether requests are being sent and answered.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Whether the server was told that nothing more comes: the connection is to be closed.
    #[must_use]
    pub fn has_left(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// How many parts of requests have been answered.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// Whether another request can be taken: there is room, and what was taken back has gone.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let mut places = self.requests.iter();
        let is_kept = |place: &Option<Request<J>>| {
            let request = place.as_ref();
            request.is_none_or(|request| request.name.is_some())
        };
        self.requests.iter().any(Option::is_none) && places.all(is_kept)
    }

    /// Whether no request is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.requests.iter().all(Option::is_none)
    }

    /// Takes a request. It fails at once if it cannot be sent to this export, or there is no room.
    pub fn submit(&mut self, name: J, command: Command, store: &mut dyn Store<J>) {
        if let Err(error) = self.check(command) {
            return store.finish(name, Err(error));
        }
        let Some(place) = self.requests.iter().position(Option::is_none) else {
            return store.finish(name, Err(RequestError::Io));
        };
        if command.extent().1 == 0 && command != Command::Flush {
            return store.finish(name, Ok(()));
        }
        self.requests[place] = Some(Request {
            name: Some(name),
            command,
            cut: 0,
            open: 0,
            failed: None,
            filled: 0,
            stage: Stage::Cutting,
        });
        self.uncut.push_back(place);
        self.cut();
    }

    /// Whether the export takes a request.
    fn check(&self, command: Command) -> Result<(), RequestError> {
        let export = self.export.ok_or(RequestError::Io)?;
        if self.is_lost {
            return Err(RequestError::Io);
        }
        let is_known = match command {
            Command::Read { .. } | Command::Write { .. } => true,
            Command::Flush => export.has_flush(),
            Command::Trim { .. } => export.has_trim(),
            Command::WriteZeroes { .. } => export.has_write_zeroes(),
        };
        if !is_known {
            return Err(RequestError::Unsupported);
        }
        if command.durability().is_some() && export.is_read_only() {
            return Err(RequestError::Permission);
        }
        let (offset, len) = command.extent();
        let block = u64::from(export.blocks().min);
        let end = offset.checked_add(len);
        let is_inside = end.is_some_and(|end| end <= export.size());
        if !is_inside || !offset.is_multiple_of(block) || !len.is_multiple_of(block) {
            return Err(RequestError::Invalid);
        }
        Ok(())
    }

    /// Who has made the requests has taken all of them back.
    pub fn abandon(&mut self) {
        self.uncut.clear();
        for request in self.requests.iter_mut().flatten() {
            request.name = None;
            request.stage = Stage::Waiting;
        }
        for slot in 0..self.parts.len() {
            let unsent = self.parts[slot].as_ref().and_then(|part| match part.owner {
                Owner::Request(place) if part.progress == Progress::Waiting => Some(place),
                _ => None,
            });
            if let Some(place) = unsent {
                self.parts[slot] = None;
                self.unsent.retain(|other| *other != slot);
                if let Some(request) = &mut self.requests[place] {
                    request.open -= 1;
                }
            }
        }
        for place in &mut self.requests {
            place.take_if(|request| request.name.is_none() && request.open == 0);
        }
    }

    /// Brings the client to rest: nothing is under way, and of what was acknowledged all lasts, so that
    /// nothing of it will be done again. Whether it has been reached; until then it is asked again
    /// after each answer, and there may be something to send.
    pub fn rest(&mut self) -> bool {
        if !self.is_idle() {
            return false;
        }
        if self.journal.is_empty() {
            return true;
        }
        self.flush_journal();
        false
    }

    /// The server is told that nothing more comes, once what is being sent has been. Without a
    /// connection nobody is.
    pub fn leave(&mut self) {
        self.is_leaving = !matches!(self.phase, Phase::Closed);
    }

    /// When the server will have taken too long; `None`, if nothing is awaited.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Closed => None,
            // Progress is its beginning until it is over.
            Phase::Negotiating(_) => Some(self.progress.saturating_add(HANDSHAKE)),
            Phase::Open { .. } => {
                let parts = self.parts.iter().flatten();
                let sent = parts.filter_map(|part| match part.progress {
                    // A server that does not take it is no better than one that does not answer.
                    Progress::Sent(at) | Progress::Sending(at) => Some(at),
                    Progress::Waiting => None,
                });
                let oldest = sent.min()?.saturating_add(PATIENCE);
                Some(oldest.min(self.progress.saturating_add(SILENCE)))
            }
        }
    }

    /// Looks at the time.
    ///
    /// # Errors
    /// [`Error::Silent`].
    pub fn check_time(&self, now: Duration) -> Result<(), Error> {
        match self.deadline() {
            Some(deadline) if deadline <= now => Err(Error::Silent),
            _ => Ok(()),
        }
    }
}

impl<J> fmt::Debug for Client<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .field("export", &self.export)
            .finish_non_exhaustive()
    }
}
