//! The live-migration block in BAR 4: where queues stand, and the log of written pages.
//!
//! Three forms of the words for the queues are in public drivers, which agree on queues 0 and 1 of
//! a network card alone. The other registers are the same in all of them.
//!
//! Sources: `ifcvf.h` of Linux (the flat form) and of DPDK (per pair and per queue).

use std::ops::Range;

use crate::violations::Violations;

const CONTROL: u64 = 0x00;
const STATUS: u64 = 0x08;
const BASE: u64 = 0x10;
const END: u64 = 0x18;
const WORDS: u64 = 0x20;
/// How many pairs or queues are going to be enabled.
const COUNT: u64 = 0x28;
/// From the words of one pair or queue to those of the next.
const STRIDE: u64 = 0x40;

/// Writes that are remembered.
const WRITES_MAX: usize = 4096;

/// Where the words for the queues are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// 32 bits each, two for each pair of queues.
    PerPair,
    /// 32 bits for each queue.
    PerQueue,
    /// 16 bits for each queue, four bytes apart. Where the others have the count is the word of
    /// queue 2.
    Flat,
}

impl Layout {
    /// Where the word of a queue is.
    #[must_use]
    pub fn place(self, queue: u16) -> u64 {
        let queue = u64::from(queue);
        match self {
            Self::PerPair => WORDS + queue / 2 * STRIDE + queue % 2 * 4,
            Self::PerQueue => WORDS + queue * STRIDE,
            Self::Flat => WORDS + queue * 4,
        }
    }

    /// How many bytes a word has.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::PerPair | Self::PerQueue => 4,
            Self::Flat => 2,
        }
    }

    /// Whether the number of pairs or queues must be told before one is enabled.
    #[must_use]
    pub fn has_count(self) -> bool {
        self != Self::Flat
    }

    /// How long the block of so many queues is.
    #[must_use]
    pub fn size(self, queues: u16) -> u64 {
        self.place(queues) + STRIDE
    }
}

/// A write as the block saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockWrite {
    /// Where, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub width: usize,
    /// What.
    pub value: u32,
}

/// Where a queue stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stand {
    /// What the card takes next.
    pub(crate) avail: u16,
    /// What it gives back next.
    pub(crate) used: u16,
}

impl Stand {
    pub(crate) fn word(self) -> u32 {
        u32::from(self.avail) | u32::from(self.used) << 16
    }

    fn of(word: u32) -> Self {
        let [a, b, c, d] = word.to_le_bytes();
        Self {
            avail: u16::from_le_bytes([a, b]),
            used: u16::from_le_bytes([c, d]),
        }
    }
}

/// The block.
#[derive(Debug)]
pub(crate) struct Block {
    layout: Layout,
    control: u32,
    base: [u32; 2],
    end: [u32; 2],
    pub(crate) count: Option<u32>,
    words: Vec<u32>,
    pub(crate) writes: Vec<BlockWrite>,
}

impl Block {
    pub(crate) fn new(layout: Layout, queues: u16) -> Self {
        Self {
            layout,
            control: 0,
            base: [0; 2],
            end: [0; 2],
            count: None,
            words: vec![0; usize::from(queues)],
            writes: Vec::new(),
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// The device is reset. The words and the log are not its own, and stay as they are.
    pub(crate) fn reset(&mut self) {
        self.count = None;
    }

    /// The bitmap, if the card is to log what it writes.
    pub(crate) fn log(&self) -> Option<Range<u64>> {
        let whole = |[low, high]: [u32; 2]| u64::from(low) | u64::from(high) << 32;
        (self.control == 1).then(|| whole(self.base)..whole(self.end))
    }

    /// Where the queue is to start.
    pub(crate) fn stand(&self, queue: u16) -> Stand {
        let word = self.words[usize::from(queue)];
        match self.layout {
            // One index is all that there is.
            Layout::Flat => Stand {
                used: Stand::of(word).avail,
                ..Stand::of(word)
            },
            Layout::PerPair | Layout::PerQueue => Stand::of(word),
        }
    }

    /// Says where a queue stands.
    pub(crate) fn set_word(&mut self, queue: u16, word: u32) {
        self.words[usize::from(queue)] = word;
    }

    pub(crate) fn read(&self, offset: u64, width: usize, violations: &mut Violations) -> u32 {
        if let Some(queue) = self.queue_at(offset) {
            if width != self.layout.width() {
                violations.note(format!("{width} bytes read of the word of queue {queue}"));
            }
            return self.words[usize::from(queue)];
        }
        if width != 4 {
            violations.note(format!("{width} bytes at block {offset:#x}"));
        }
        match offset {
            CONTROL => self.control,
            STATUS | 0x04 | 0x0c => 0,
            BASE => self.base[0],
            0x14 => self.base[1],
            END => self.end[0],
            0x1c => self.end[1],
            COUNT => self.count.unwrap_or(0),
            _ => {
                violations.note(format!("block {offset:#x} read, where nothing is"));
                0
            }
        }
    }

    /// `enabled` says which queues run.
    pub(crate) fn write(
        &mut self,
        offset: u64,
        width: usize,
        value: u32,
        enabled: impl Fn(u16) -> bool,
        violations: &mut Violations,
    ) {
        if self.writes.len() < WRITES_MAX {
            self.writes.push(BlockWrite {
                offset,
                width,
                value,
            });
        }
        if let Some(queue) = self.queue_at(offset) {
            if width != self.layout.width() {
                violations.note(format!(
                    "{width} bytes written to the word of queue {queue}"
                ));
            } else if enabled(queue) {
                violations.note(format!("the word of queue {queue} written while it runs"));
            } else {
                self.words[usize::from(queue)] = value;
            }
            return;
        }
        if width != 4 {
            violations.note(format!("{width} bytes at block {offset:#x}"));
            return;
        }
        match offset {
            CONTROL if value <= 1 => self.control = value,
            BASE | 0x14 | END | 0x1c if self.control != 0 => {
                violations.note("the log was moved while it is on".into());
            }
            BASE => self.base[0] = value,
            0x14 => self.base[1] = value,
            END => self.end[0] = value,
            0x1c => self.end[1] = value,
            COUNT if self.layout.has_count() => self.count = Some(value),
            _ => violations.note(format!("{value:#x} written to block {offset:#x}")),
        }
    }

    fn queue_at(&self, offset: u64) -> Option<u16> {
        let queues = u16::try_from(self.words.len()).unwrap_or(u16::MAX);
        (0..queues).find(|queue| self.layout.place(*queue) == offset)
    }
}
