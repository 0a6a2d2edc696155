//! What is sent: a part of a request that the server takes at once.

use core::time::Duration;

use super::command::Command;
use super::error::RequestError;
use super::ranges::Ranges;

/// Who a part is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The request in this place.
    Request(usize),
    /// The client itself, which wants its journal to become shorter.
    Journal,
    /// The change of this number, which is done once more.
    Replay(u64),
}

/// How far a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Waiting,
    /// Some of its bytes are sent, since this time.
    Sending(Duration),
    /// It has been sent at this time and can be answered.
    Sent(Duration),
}

/// A part.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) owner: Owner,
    pub(crate) command: Command,
    /// Where in the request's data it begins.
    pub(crate) at: u64,
    /// Its length. For reads and writes at most [`super::client::PART_MAX`].
    pub(crate) len: u32,
    /// The order in which parts were made.
    pub(crate) serial: u64,
    pub(crate) progress: Progress,
    /// What the server calls it: another one each time it is sent.
    pub(crate) cookie: u64,
    /// What has come of a read.
    pub(crate) come: Ranges,
    pub(crate) failed: Option<RequestError>,
    /// How many connections have ended over it, with an error of the server.
    pub(crate) attempts: u8,
    /// The changes before this number last when it is done.
    pub(crate) covers: u64,
}

impl Part {
    pub(crate) fn new(owner: Owner, command: Command, at: u64, serial: u64) -> Self {
        let (_, len) = command.extent();
        Self {
            owner,
            command,
            at,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            serial,
            progress: Progress::Waiting,
            cookie: 0,
            come: Ranges::default(),
            failed: None,
            attempts: 0,
            covers: 0,
        }
    }

    /// The connection has ended: it is sent again.
    pub(crate) fn rewind(&mut self) {
        self.progress = Progress::Waiting;
        self.come.clear();
        self.failed = None;
    }

    pub(crate) fn is_sent(&self) -> bool {
        matches!(self.progress, Progress::Sent(_))
    }

    pub(crate) fn is_read(&self) -> bool {
        matches!(self.command, Command::Read { .. })
    }
}
