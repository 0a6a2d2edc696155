//! A chain that the device side has taken from the driver: private, checked, and given back once.

use alloc::boxed::Box;
use alloc::vec;
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use super::completion::Completion;
use super::descriptor::Descriptor;
use super::error::Broken;
use crate::format::F_WRITE;
use crate::{DmaAddr, Segment};

/// The most bytes that a chain may hold (VIRTIO 1.2, 2.7.5).
const BYTES_MAX: u64 = 1 << 32;

/// Buffers of the driver, in the device's hands until they are completed.
///
/// It is a copy of the descriptors, checked, that the driver cannot change any more. It must go
/// back by [`DeviceQueue::complete`](super::DeviceQueue::complete): one that is dropped never
/// returns to the driver, and its place in the queue is lost.
#[derive(Debug)]
#[must_use = "the driver waits for the chain"]
pub struct Chain {
    /// In one piece of the queue's pool, so that handing a chain around moves a pointer.
    pub(super) body: Box<Body>,
}

/// What a queue has found out about a chain.
#[derive(Debug)]
pub(super) struct Body {
    /// Scratch of the queue's pool; `readable` segments of it, then up to `count` writable ones.
    segments: Box<[Segment]>,
    facts: Facts,
    /// The queue it belongs to.
    pub(super) owner: u32,
    /// How many chains that queue has taken with this one.
    pub(super) serial: u64,
}

/// What the descriptors say of a chain.
#[derive(Debug, Default)]
struct Facts {
    readable: u16,
    count: u16,
    id: u16,
    /// How many descriptors of the ring the chain takes; 0 until its id is known.
    descriptors: u16,
    readable_len: u64,
    writable_len: u64,
}

impl Chain {
    /// What the driver calls it: the head's index in a split ring, the buffer id in a packed one.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.body.facts.id
    }

    /// What the device may read. Descriptors of length zero are left out.
    #[must_use]
    pub fn readable(&self) -> &[Segment] {
        &self.body.segments[..usize::from(self.body.facts.readable)]
    }

    /// What the device may write. Descriptors of length zero are left out.
    #[must_use]
    pub fn writable(&self) -> &[Segment] {
        &self.body.segments
            [usize::from(self.body.facts.readable)..usize::from(self.body.facts.count)]
    }

    /// How many bytes the device may read.
    #[must_use]
    pub fn readable_len(&self) -> u64 {
        self.body.facts.readable_len
    }

    /// How many bytes the device may write.
    #[must_use]
    pub fn writable_len(&self) -> u64 {
        self.body.facts.writable_len
    }

    /// What the driver is told of the chain when `written` bytes have been written, or as many as
    /// it holds.
    #[inline]
    pub(super) fn completion(&self, written: u32) -> Completion {
        let facts = &self.body.facts;
        let filled = u64::from(written) >= facts.writable_len;
        Completion {
            id: facts.id,
            descriptors: facts.descriptors,
            // Below 32 bits if it is less than what was written.
            written: if filled {
                facts.writable_len as u32
            } else {
                written
            },
            // Not of a chain of which nothing is known.
            is_full: filled && facts.count > 0,
        }
    }

    /// A chain for a pool, with scratch for so many segments.
    pub(super) fn with_room(segments: u16, owner: u32) -> Self {
        let blank = Segment::described(DmaAddr(0), 0);
        Self {
            body: Box::new(Body {
                segments: vec![blank; usize::from(segments)].into(),
                facts: Facts::default(),
                owner,
                serial: 0,
            }),
        }
    }

    /// Forgets the chain that it was.
    #[inline]
    pub(super) fn reset(&mut self) {
        self.body.facts.descriptors = 0;
    }

    /// Makes it the chain of one descriptor of the ring, or says what is wrong with it.
    #[inline(always)]
    pub(super) fn fill_single(&mut self, id: u16, descriptor: Descriptor) -> Result<(), Broken> {
        let Descriptor {
            addr, len, flags, ..
        } = descriptor;
        let Body {
            segments, facts, ..
        } = &mut *self.body;
        let bytes = u64::from(len);
        let (Some(segment), Some(_)) = (segments.first_mut(), addr.checked_add(bytes)) else {
            return self.fill_odd(id, descriptor);
        };
        if len == 0 {
            return self.fill_odd(id, descriptor);
        }
        *segment = Segment::described(DmaAddr(addr), len);
        (facts.id, facts.descriptors, facts.count) = (id, 1, 1);
        if flags & F_WRITE != 0 {
            (facts.readable, facts.readable_len, facts.writable_len) = (0, 0, bytes);
        } else {
            (facts.readable, facts.readable_len, facts.writable_len) = (1, bytes, 0);
        }
        Ok(())
    }

    /// The same for one that is empty, or ends with the address space or behind it.
    #[cold]
    fn fill_odd(&mut self, id: u16, descriptor: Descriptor) -> Result<(), Broken> {
        let mut filling = self.fill();
        filling.identify(id, 1);
        filling.add(descriptor)?;
        filling.end()
    }

    /// Makes it the chain of a table's entries in a packed ring, if nothing about them is unusual.
    /// If something is, they have to be read again, one after the other.
    #[inline(always)]
    pub(super) fn fill_all(&mut self, id: u16, entries: &[[AtomicU64; 2]]) -> bool {
        let Body {
            segments, facts, ..
        } = &mut *self.body;
        if segments.len() < entries.len() {
            return false;
        }
        let (mut readable, mut readable_len, mut writable_len) = (0, 0, 0);
        for ([addr, rest], segment) in entries.iter().zip(segments) {
            let load = |word: &AtomicU64| u64::from_le(word.load(Ordering::Relaxed));
            let Descriptor {
                addr, len, flags, ..
            } = Descriptor::packed(load(addr), load(rest));
            let bytes = u64::from(len);
            if len == 0 || addr.checked_add(bytes).is_none() {
                return false;
            }
            if flags & F_WRITE != 0 {
                writable_len += bytes;
            } else if writable_len == 0 {
                readable += 1;
                readable_len += bytes;
            } else {
                return false;
            }
            *segment = Segment::described(DmaAddr(addr), len);
        }
        if readable_len + writable_len > BYTES_MAX {
            return false;
        }
        (facts.id, facts.descriptors) = (id, 1);
        // No more than there is room for.
        (facts.readable, facts.count) = (readable, entries.len() as u16);
        (facts.readable_len, facts.writable_len) = (readable_len, writable_len);
        true
    }

    /// Begins to collect the segments of the chain.
    #[inline]
    pub(super) fn fill(&mut self) -> Filling<'_> {
        let body = &mut *self.body;
        Filling {
            room: body.segments.iter_mut(),
            facts: &mut body.facts,
            readable: 0,
            count: 0,
            has_writable: false,
            readable_len: 0,
            writable_len: 0,
        }
    }

    /// How many descriptors of the ring the chain takes, or 0 if its id is not known.
    #[inline]
    #[must_use]
    pub fn descriptors(&self) -> u16 {
        self.body.facts.descriptors
    }

    /// Takes all segments out: nothing of a malformed chain is to be used.
    pub(super) fn clear(&mut self) {
        (self.body.facts.readable, self.body.facts.count) = (0, 0);
        (self.body.facts.readable_len, self.body.facts.writable_len) = (0, 0);
    }
}

/// A chain whose descriptors are being read. It has none of their segments before the
/// [end](Self::end), so that what is counted meanwhile stays in registers.
pub(super) struct Filling<'a> {
    /// Scratch for the segments to come.
    room: slice::IterMut<'a, Segment>,
    facts: &'a mut Facts,
    readable: u16,
    count: u16,
    has_writable: bool,
    readable_len: u64,
    writable_len: u64,
}

impl Filling<'_> {
    /// Names the chain and says how many descriptors of the ring it takes, at least one.
    #[inline]
    pub(super) fn identify(&mut self, id: u16, descriptors: u16) {
        self.facts.id = id;
        self.facts.descriptors = descriptors;
    }

    /// Adds what a descriptor names, or says what is wrong with it.
    #[inline]
    pub(super) fn add(&mut self, descriptor: Descriptor) -> Result<(), Broken> {
        let Descriptor {
            addr, len, flags, ..
        } = descriptor;
        let writable = flags & F_WRITE != 0;
        if self.has_writable && !writable {
            return Err(Broken::ReadableAfterWritable);
        }
        self.has_writable = writable;
        // The specification does not forbid an empty buffer, and Linux's device side takes it.
        let Some(last) = len.checked_sub(1) else {
            return Ok(());
        };
        // A segment may end with the last byte of the address space.
        if addr.checked_add(u64::from(last)).is_none() {
            return Err(Broken::AddressWrap);
        }
        let slot = self.room.next().ok_or(Broken::TooLong)?;
        *slot = Segment::described(DmaAddr(addr), len);
        self.count += 1;
        if writable {
            self.writable_len += u64::from(len);
        } else {
            self.readable = self.count;
            self.readable_len += u64::from(len);
        }
        Ok(())
    }

    /// Checks the chain as a whole after its last descriptor.
    #[inline]
    pub(super) fn end(self) -> Result<(), Broken> {
        if self.readable_len + self.writable_len > BYTES_MAX {
            return Err(Broken::TooManyBytes);
        }
        let facts = self.facts;
        (facts.readable, facts.count) = (self.readable, self.count);
        (facts.readable_len, facts.writable_len) = (self.readable_len, self.writable_len);
        Ok(())
    }
}
