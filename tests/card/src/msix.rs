//! The MSI-X table and the pending bits.
//!
//! Source: PCI Local Bus 3.0, 6.8.2.

use crate::places::PENDING;
use crate::violations::Violations;

const ENTRY: u64 = 16;
const MASKED: u32 = 1;

/// A store that is an interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Where the card writes.
    pub address: u64,
    /// What it writes.
    pub data: u32,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    words: [u32; 4],
    pending: bool,
}

impl Entry {
    const EMPTY: Self = Self {
        words: [0, 0, 0, MASKED],
        pending: false,
    };

    fn is_masked(&self) -> bool {
        self.words[3] & MASKED != 0
    }

    fn message(&self) -> Message {
        let [low, high, data, _] = self.words;
        Message {
            address: u64::from(low) | u64::from(high) << 32,
            data,
        }
    }
}

impl Table {
    pub(crate) fn new(entries: u16) -> Self {
        Self {
            entries: vec![Entry::EMPTY; usize::from(entries)],
        }
    }

    pub(crate) fn reset(&mut self) {
        self.entries.fill(Entry::EMPTY);
    }

    pub(crate) fn len(&self) -> u16 {
        u16::try_from(self.entries.len()).unwrap_or(u16::MAX)
    }

    /// How many entries are not masked.
    pub(crate) fn unmasked(&self) -> usize {
        self.entries
            .iter()
            .filter(|entry| !entry.is_masked())
            .count()
    }

    /// Raises an interrupt: the message to send, if the entry lets it through.
    pub(crate) fn raise(&mut self, vector: u16, function_masked: bool) -> Option<Message> {
        let entry = self.entries.get_mut(usize::from(vector))?;
        if function_masked || entry.is_masked() {
            entry.pending = true;
            return None;
        }
        Some(entry.message())
    }

    /// What has been waiting for its mask to go.
    pub(crate) fn flush(&mut self, function_masked: bool) -> Vec<(u16, Message)> {
        let mut due = Vec::new();
        for (vector, entry) in (0..).zip(&mut self.entries) {
            if entry.pending && !function_masked && !entry.is_masked() {
                entry.pending = false;
                due.push((vector, entry.message()));
            }
        }
        due
    }

    /// Reads a double word of the table or of the pending bits.
    pub(crate) fn read(&self, offset: u64) -> u32 {
        if offset >= PENDING {
            let first = usize::try_from((offset - PENDING) * 8).unwrap_or(usize::MAX);
            let bits = self.entries.iter().skip(first).take(32);
            return bits
                .rev()
                .fold(0, |word, entry| word << 1 | u32::from(entry.pending));
        }
        let (entry, word) = split(offset);
        self.entries.get(entry).map_or(0, |entry| entry.words[word])
    }

    /// Writes a double word of the table.
    pub(crate) fn write(
        &mut self,
        offset: u64,
        value: u32,
        function_masked: bool,
        violations: &mut Violations,
    ) {
        let (index, word) = split(offset);
        let Some(entry) = self.entries.get_mut(index).filter(|_| offset < PENDING) else {
            violations.note(format!("{value:#x} written to MSI-X {offset:#x}"));
            return;
        };
        if word < 3 && !entry.is_masked() && !function_masked {
            violations.note(format!("MSI-X entry {index} edited unmasked"));
        }
        entry.words[word] = value;
    }
}

fn split(offset: u64) -> (usize, usize) {
    let entry = usize::try_from(offset / ENTRY).unwrap_or(usize::MAX);
    let word = usize::try_from(offset % ENTRY / 4).unwrap_or(0);
    (entry, word)
}
