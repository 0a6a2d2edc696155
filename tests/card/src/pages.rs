//! Which pages of the driver's memory the card has written payload to: its own record, and the log
//! that the driver has asked for. The rings are not among them, as on the hardware.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

use virtq::device::{Access, Memory};
use virtq::{DmaAddr, Segment};

use crate::GuestMemory;
use crate::violations::Violations;

const PAGE: u64 = 4096;

/// Pages by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    pub(crate) written: BTreeSet<u64>,
    /// The bitmap in the driver's memory, while it is on.
    pub(crate) log: Option<Range<u64>>,
}

impl Pages {
    /// Payload was written to the first `len` bytes behind `offset` of the segments.
    pub(crate) fn add(
        &mut self,
        memory: &GuestMemory,
        segments: &[Segment],
        offset: u64,
        len: usize,
        violations: &mut Violations,
    ) {
        let (mut skip, mut left) = (offset, len as u64);
        for segment in segments {
            let room = u64::from(segment.len);
            if skip >= room {
                skip -= room;
                continue;
            }
            let now = left.min(room - skip);
            if now == 0 {
                return;
            }
            let first = segment.addr.0 + skip;
            for page in first / PAGE..=(first + (now - 1)) / PAGE {
                self.add_page(memory, page, violations);
            }
            (skip, left) = (0, left - now);
        }
    }

    fn add_page(&mut self, memory: &GuestMemory, page: u64, violations: &mut Violations) {
        self.written.insert(page);
        let Some(log) = &self.log else { return };
        let byte = log.start.saturating_add(page / 8);
        if byte >= log.end {
            return;
        }
        let Ok(piece) = memory.translate(DmaAddr(byte), 1, Access::Write) else {
            violations.note(format!("the log cannot be reached at {byte:#x}"));
            return;
        };
        // SAFETY: the memory is one byte that may be written and that no reference of Rust covers;
        // the driver reads and clears it meanwhile, as it knows.
        let bits = unsafe { AtomicU8::from_ptr(piece.ptr.as_ptr()) };
        bits.fetch_or(1 << (page % 8), Ordering::Release);
    }
}
