//! Changes that the server has acknowledged and may still lose, because nothing was flushed since.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::command::Command;

/// What an entry costs besides its data.
const ENTRY: usize = 64;

/// A change, and the data of a write.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) command: Command,
    pub(crate) data: Vec<u8>,
}

/// The changes, in the order of their acknowledgement. They are numbered.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: VecDeque<Entry>,
    /// The number of the first one.
    first: u64,
    bytes: usize,
}

impl Journal {
    /// How many bytes of memory a change takes, or all of them at most.
    pub(crate) const LIMIT: usize = 4 << 20;

    /// What a change would take.
    pub(crate) fn cost(command: Command) -> usize {
        ENTRY + usize::try_from(command.payload()).unwrap_or(usize::MAX - ENTRY)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, command: Command, data: Vec<u8>) {
        self.bytes += ENTRY + data.len();
        self.entries.push_back(Entry { command, data });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of the next change.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The number of the first change that is kept.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Entry> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get(place)
    }

    /// The changes before this number last.
    pub(crate) fn flushed(&mut self, end: u64) {
        while self.first < end
            && let Some(entry) = self.entries.pop_front()
        {
            self.first += 1;
            self.bytes -= ENTRY + entry.data.len();
        }
    }
}
