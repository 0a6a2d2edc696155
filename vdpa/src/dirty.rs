//! Which pages a device has written, for a copy of its memory while it runs.
//!
//! The bitmap is a [`DirtyLog`], the right to have one is an
//! [`Attachment`](crate::device::Attachment)'s. This is the set that a reader makes of it, not a
//! log: nobody writes it but its owner.
//!
//! A device sets the bit of a page after it has written there. A reader that takes the bits and
//! *then* copies the pages misses nothing: what is written later is found the next time.
//!
//! Source: `VHOST_SET_LOG_BASE` of Linux's `vhost.h`, whose bitmap this is.

use alloc::vec::Vec;
use core::fmt;

use virtq::{AccessError, DmaAddr, SharedMemory};

use crate::ops::{DirtyLog, OpError};

/// How many bytes one bit of a log stands for.
pub const PAGE_SIZE: u64 = 4096;

/// Copies bytes of a bitmap from an offset on.
type ReadBytes<'a> = dyn Fn(u64, &mut [u8]) -> Result<(), AccessError> + 'a;

/// How many bytes of a bitmap are looked at together.
const STRETCH: usize = 512;

/// Why a log cannot be started, read or stopped. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The device keeps a log already.
    #[error("the device keeps a log already")]
    Running,
    /// The device keeps no log; a reset has ended it, or nobody has started one.
    #[error("the device keeps no log")]
    NotRunning,
    /// The bitmap is empty, does not start with a page, or reaches beyond the last address.
    #[error("no such range for a bitmap")]
    BadRange,
    /// The bitmap is not mapped in one piece of the first address space, for reading and writing.
    #[error("the bitmap is not mapped in one piece")]
    NotMapped,
    /// The device: [`OpError::NotOwner`], [`OpError::Gone`], [`OpError::Unsupported`],
    /// [`OpError::WrongState`] before `FEATURES_OK` and when only a reset can help, or what it has
    /// answered.
    #[error(transparent)]
    Device(#[from] OpError),
}

impl DirtyLog {
    /// The shortest log with bits for all pages up to the one of the address `last`.
    #[must_use]
    pub const fn covering(base: DmaAddr, last: u64) -> Self {
        Self {
            base,
            len: last / PAGE_SIZE / 8 + 1,
        }
    }
}

/// A set of pages, by their numbers: device addresses divided by [`PAGE_SIZE`].
///
/// It holds at most as much as the bitmaps that it was taken from have bits, a word of 64 at a
/// time.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DirtyPages {
    /// Numbers of words in ascending order, and what they hold; none is zero.
    words: Vec<(u64, u64)>,
}

impl DirtyPages {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: Vec::new() }
    }

    /// Takes all bits out of the `len` bytes of bitmap from `offset` of the memory on, and adds
    /// their pages.
    ///
    /// Each byte is taken in one step. A device may go on meanwhile: each of its bits is found now
    /// or the next time, and none is lost. Of a page that is found now, everything can be read that
    /// was written before its bit was set.
    ///
    /// # Errors
    /// [`AccessError`]: nothing was taken.
    pub fn take(
        &mut self,
        memory: &SharedMemory,
        offset: u64,
        len: u64,
    ) -> Result<(), AccessError> {
        let read = |at, bytes: &mut [u8]| memory.read(at, bytes);
        self.take_from(memory.len(), offset, len, &read, &|at| memory.take_bits(at))
    }

    /// The same of a bitmap that a device has been given in memory that an allocator may have
    /// claimed.
    ///
    /// # Errors
    /// [`AccessError::OutOfBounds`]: nothing was taken.
    ///
    /// # Safety
    /// The bitmap lies in no buffer that a program has.
    pub(crate) unsafe fn take_lent(
        &mut self,
        memory: &SharedMemory,
        offset: u64,
        len: u64,
    ) -> Result<(), AccessError> {
        // SAFETY: the caller vouches for the bitmap.
        let read = |at, bytes: &mut [u8]| unsafe { memory.read_lent(at, bytes) };
        // SAFETY: as above.
        let take = |at| unsafe { memory.take_lent_bits(at) };
        self.take_from(memory.len(), offset, len, &read, &take)
    }

    fn take_from(
        &mut self,
        memory_len: u64,
        offset: u64,
        len: u64,
        read: &ReadBytes<'_>,
        take: &dyn Fn(u64) -> Result<u8, AccessError>,
    ) -> Result<(), AccessError> {
        let end = offset.checked_add(len).ok_or(AccessError::OutOfBounds)?;
        if end > memory_len {
            return Err(AccessError::OutOfBounds);
        }
        let mut stretch = [0; STRETCH];
        let mut at = offset;
        while at < end {
            let left = usize::try_from(end - at).map_or(STRETCH, |left| left.min(STRETCH));
            let bytes = &mut stretch[..left];
            read(at, bytes)?;
            // Most of a log is empty.
            if *bytes != [0; STRETCH][..left] {
                let set = (at..).zip(bytes.iter()).filter(|(_, byte)| **byte != 0);
                for (place, _) in set {
                    let bits = take(place)?;
                    self.add_byte(place - offset, bits);
                }
            }
            at += left as u64;
        }
        Ok(())
    }

    /// Adds the pages of the `len` bytes from an address on, as far as there are addresses.
    pub fn insert(&mut self, addr: DmaAddr, len: u64) {
        for page in pages(addr, len) {
            self.add_byte(page / 8, 1 << (page % 8));
        }
    }

    /// Adds all pages of another set.
    pub fn merge(&mut self, other: &Self) {
        for (word, bits) in &other.words {
            self.add_word(*word, *bits);
        }
    }

    /// Whether the page of this number is in the set.
    #[must_use]
    pub fn contains(&self, page: u64) -> bool {
        let place = self.words.binary_search_by_key(&(page / 64), |word| word.0);
        place.is_ok_and(|place| self.words[place].1 & 1 << (page % 64) != 0)
    }

    /// Whether there is no page in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// How many pages there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        let ones = self.words.iter().map(|(_, bits)| bits.count_ones());
        ones.map(u64::from).sum()
    }

    /// The numbers of the pages, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.words.iter().flat_map(|(word, bits)| {
            let set = (0..64).filter(move |bit| bits & 1 << bit != 0);
            set.map(move |bit| word * 64 + bit)
        })
    }

    /// Adds the pages of one byte of a bitmap.
    fn add_byte(&mut self, place: u64, bits: u8) {
        if bits != 0 {
            let shift = place % 8 * 8;
            self.add_word(place / 8, u64::from(bits) << shift);
        }
    }

    fn add_word(&mut self, number: u64, bits: u64) {
        match self.words.binary_search_by_key(&number, |word| word.0) {
            Ok(place) => self.words[place].1 |= bits,
            Err(place) => self.words.insert(place, (number, bits)),
        }
    }
}

/// As ranges of page numbers.
impl fmt::Debug for DirtyPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        let mut run: Option<(u64, u64)> = None;
        for page in self.iter() {
            run = match run {
                Some((first, last)) if last + 1 == page => Some((first, page)),
                ended => {
                    list.entries(ended.map(|(first, last)| first..=last));
                    Some((page, page))
                }
            };
        }
        list.entries(run.map(|(first, last)| first..=last));
        list.finish()
    }
}

/// The numbers of the pages that the `len` bytes from an address on lie in.
pub fn pages(addr: DmaAddr, len: u64) -> impl Iterator<Item = u64> {
    let last = len
        .checked_sub(1)
        .map(|further| addr.0.saturating_add(further));
    last.into_iter()
        .flat_map(move |last| addr.0 / PAGE_SIZE..=last / PAGE_SIZE)
}
