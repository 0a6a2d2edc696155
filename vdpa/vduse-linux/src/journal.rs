//! Where each queue stands, in a file that outlives the program.
//!
//! A split ring says itself what was given back last. In a packed ring a used descriptor lies where
//! the chain's own was, so that one which is half written is lost. So what is about to be given back
//! is noted before, and written anew by the next program if the driver has not seen it.
//!
//! The file is memory that is shared with nobody: what was stored is there after the program was
//! killed, though not after the machine was.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::ProtFlags;

use crate::error::Error;
use crate::mapping::Mapping;

/// The most chains that are given back at once.
pub(crate) const BATCH: usize = 64;

/// What a file of this layout begins with.
const MAGIC: u64 = u64::from_le_bytes(*b"vduse 02");
/// Bytes before the first queue: the magic, and the name of the device.
const HEADER: u64 = NAME + NAME_MAX as u64;
const NAME: u64 = 8;
/// Longer than any name that the kernel takes.
const NAME_MAX: usize = 256;
/// Bytes of a queue: its position, and the chains of a batch.
const SLOT: u64 = 1024;
const _: () = assert!(SLOT >= 8 * (1 + BATCH as u64));

/// Marks a position that is one.
const VALID: u64 = 1 << 16;

/// The file.
#[derive(Debug)]
pub struct Journal {
    mapping: Mapping,
    /// Locked as long as it is open.
    _file: File,
    queues: u16,
}

/// A place in a packed ring, with the wrap counter there. In a split ring it means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) index: u16,
    pub(crate) wrap: bool,
}

/// A chain that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) id: u16,
    pub(crate) descriptors: u16,
    pub(crate) written: u32,
}

/// What is noted of one queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueJournal {
    journal: Arc<Journal>,
    index: u16,
}

impl Journal {
    /// Opens the file for so many queues of the device `name`, and makes it if it is not there. What
    /// another device has left in it is forgotten.
    ///
    /// # Errors
    /// Another program or device has it; what the system says otherwise.
    pub fn open(path: &Path, name: &str, queues: u16) -> Result<Self, Error> {
        let header = header(name);
        let length = HEADER + SLOT * u64::from(queues);
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let file = options.open(path)?;
            file.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => io::Error::other("another program or device has it"),
                TryLockError::Error(error) => error,
            })?;
            let mut found = [0; HEADER as usize];
            let is_ours = file.read_exact_at(&mut found, 0).is_ok() && found == header;
            if !is_ours {
                // All of it, whatever dies in between: without a header it is nobody's.
                file.set_len(0)?;
            }
            // What is behind is of queues that this program does not know of.
            if file.metadata()?.len() < length {
                file.set_len(length)?;
            }
            if !is_ours {
                file.write_all_at(&header, 0)?;
            }
            let access = ProtFlags::READ | ProtFlags::WRITE;
            Ok((Mapping::new(&file, 0, length, access)?, file))
        };
        let (mapping, file) = open().map_err(Error::of("the journal"))?;
        Ok(Self {
            mapping,
            _file: file,
            queues,
        })
    }

    /// Forgets all queues: those of a device that is new.
    pub(crate) fn clear(&self) {
        for queue in 0..self.queues {
            self.word(HEADER + SLOT * u64::from(queue))
                .store(0, Ordering::Release);
        }
    }

    pub(crate) fn queue(self: &Arc<Self>, index: u16) -> Option<QueueJournal> {
        (index < self.queues).then(|| QueueJournal {
            journal: Arc::clone(self),
            index,
        })
    }

    /// A number of the file, at an offset inside of it that is a multiple of eight.
    fn word(&self, offset: u64) -> &AtomicU64 {
        let word = self.mapping.word(offset);
        word.expect("the file was mapped with room for its queues")
    }
}

/// What the file of a device begins with.
fn header(name: &str) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    let (magic, rest) = header.split_at_mut(NAME as usize);
    magic.copy_from_slice(&MAGIC.to_le_bytes());
    for (to, from) in rest.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    header
}

impl QueueJournal {
    /// Notes where the queue stands, with nothing to give back.
    pub(crate) fn stand(&self, place: Place) {
        self.position().store(encode(place, 0), Ordering::Release);
    }

    /// Notes the chains that are about to be given back from `place` on, at most [`BATCH`]. None is
    /// noted before: with others in their place it would lead astray.
    pub(crate) fn begin(&self, place: Place, batch: &[Done]) {
        self.fill(batch);
        let position = encode(place, batch.len() as u64);
        self.position().store(position, Ordering::Release);
    }

    /// Writes the chains, of which none counts yet.
    pub(crate) fn fill(&self, batch: &[Done]) {
        for (number, done) in (1..).zip(batch) {
            let Done {
                id,
                descriptors,
                written,
            } = *done;
            let bits = u64::from(id) | u64::from(descriptors) << 16 | u64::from(written) << 32;
            self.word(number).store(bits, Ordering::Relaxed);
        }
    }

    /// Forgets the queue, which the driver has taken back.
    pub(crate) fn forget(&self) {
        self.position().store(0, Ordering::Release);
    }

    /// Where the queue stands and what was about to be given back there, if it is in use.
    pub(crate) fn read(&self) -> Option<(Place, Vec<Done>)> {
        let position = self.position().load(Ordering::Acquire);
        if position & VALID == 0 {
            return None;
        }
        let place = Place {
            index: position as u16 & 0x7fff,
            wrap: position & 1 << 15 != 0,
        };
        let count = (position >> 32).min(BATCH as u64);
        let batch = (1..=count).map(|number| {
            let bits = self.word(number).load(Ordering::Relaxed);
            Done {
                id: bits as u16,
                descriptors: (bits >> 16) as u16,
                written: (bits >> 32) as u32,
            }
        });
        Some((place, batch.collect()))
    }

    fn position(&self) -> &AtomicU64 {
        self.word(0)
    }

    fn word(&self, number: u64) -> &AtomicU64 {
        let slot = HEADER + SLOT * u64::from(self.index);
        self.journal.word(slot + 8 * number)
    }
}

fn encode(place: Place, count: u64) -> u64 {
    u64::from(place.index) | u64::from(place.wrap) << 15 | VALID | count << 32
}
