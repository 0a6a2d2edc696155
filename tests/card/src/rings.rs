//! What a driver writes into its rings, looked at before the device takes it.
//!
//! This reads the driver's memory by itself, so that it does not depend on what the device side of
//! the queue believes. A chain is remembered from when it is made available to when it is given
//! back, and must not change meanwhile.
//!
//! Source: VIRTIO 1.2, 2.7 and 2.8, the requirements for drivers.

mod packed;
mod split;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU16, Ordering};

use virtq::device::{Access, Memory};
use virtq::{DmaAddr, RingAddresses};

use crate::GuestMemory;
use crate::plan::bits;
use crate::violations::Violations;

/// Flags of a descriptor (2.7.5 and 2.8.13).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;
/// Bytes that a chain has at most (2.7.5.2).
const CHAIN_BYTES: u64 = 1 << 32;

/// The rings of one queue that runs.
pub(crate) struct Rings {
    memory: GuestMemory,
    size: u16,
    addresses: RingAddresses,
    packed: bool,
    event_idx: bool,
    indirect: bool,
    in_order: bool,
    /// The index of the available ring, or the place in the ring, that is looked at next.
    next: u16,
    wrap: bool,
    /// What is available, by the id under which it comes back.
    exposed: BTreeMap<u16, Vec<Entry>>,
    /// Where all of its descriptors lie.
    taken: BTreeSet<u64>,
    /// A queue that makes no sense is not looked at any more.
    lost: bool,
}

/// A descriptor where it lies, as it was when it was made available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    at: u64,
    bytes: [u8; 16],
}

/// A descriptor, split or packed.
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    addr: u64,
    len: u32,
    /// `flags` of a split one, `id` of a packed one.
    third: u16,
    /// `next` of a split one, `flags` of a packed one.
    fourth: u16,
}

impl Descriptor {
    fn new(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, l0, l1, l2, l3, t0, t1, f0, f1] = bytes;
        Self {
            addr: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            third: u16::from_le_bytes([t0, t1]),
            fourth: u16::from_le_bytes([f0, f1]),
        }
    }
}

/// The parts of one chain, for what holds of all of them together.
#[derive(Default)]
struct Parts {
    count: u32,
    bytes: u64,
    writable: bool,
}

/// What is wrong with a chain: the section, and how it is said.
type Fault = (&'static str, String);

impl Parts {
    fn add(&mut self, len: u32, writes: bool, order: &'static str) -> Result<(), Fault> {
        self.count += 1;
        self.bytes += u64::from(len);
        if self.writable && !writes {
            let fault = "a device-readable descriptor after a device-writable one";
            return Err((order, fault.into()));
        }
        self.writable |= writes;
        Ok(())
    }
}

impl Rings {
    pub(crate) fn new(
        memory: &GuestMemory,
        size: u16,
        addresses: RingAddresses,
        features: u128,
        start: u16,
        violations: &mut Violations,
    ) -> Self {
        let has = |feature| features & bits(feature) != 0;
        let rings = Self {
            memory: GuestMemory::clone(memory),
            size,
            addresses,
            packed: has(virtio::F::RING_PACKED),
            event_idx: has(virtio::F::EVENT_IDX),
            indirect: has(virtio::F::INDIRECT_DESC),
            in_order: has(virtio::F::IN_ORDER),
            next: start,
            wrap: true,
            exposed: BTreeMap::new(),
            taken: BTreeSet::new(),
            lost: false,
        };
        rings.check_places(violations);
        rings
    }

    /// 2.7.1 and 2.8.11: alignments. 2.7.10.1: the flags of a new used ring.
    fn check_places(&self, violations: &mut Violations) {
        let RingAddresses {
            descriptor,
            driver,
            device,
        } = self.addresses;
        let (section, aligns) = if self.packed {
            ("2.8.11", [16, 4, 4])
        } else {
            ("2.7.1", [16, 2, 4])
        };
        for (part, align) in [descriptor, driver, device].into_iter().zip(aligns) {
            if !part.0.is_multiple_of(align) {
                violations.against(
                    section,
                    format_args!("a part at {:#x}, not {align}", part.0),
                );
            }
        }
        if !self.packed && self.word(device.0).is_some_and(|flags| flags != 0) {
            violations.against("2.7.10.1", "the flags of a new used ring are not 0");
        }
    }

    /// Looks at everything that has been made available since the last look.
    pub(crate) fn look(&mut self, violations: &mut Violations) {
        if self.lost {
            return;
        }
        let looked = if self.packed {
            self.look_packed()
        } else {
            self.look_split()
        };
        if let Err((section, fault)) = looked {
            violations.against(section, fault);
            self.lost = true;
        }
    }

    /// A chain is about to be given back: it must be what it was (3.3.1, 2.8.16).
    pub(crate) fn give_back(&mut self, id: u16, violations: &mut Violations) {
        let Some(entries) = self.exposed.remove(&id) else {
            return;
        };
        let section = if self.packed { "2.8.16" } else { "3.3.1" };
        for entry in entries {
            self.taken.remove(&entry.at);
            if self.bytes(entry.at).is_some_and(|now| now != entry.bytes) {
                let fault = format_args!("a descriptor of buffer {id} changed while available");
                violations.against(section, fault);
            }
        }
    }

    /// Where the driver stands, as a notification tells it with `NOTIFICATION_DATA` (2.9).
    pub(crate) fn place(&self) -> u16 {
        self.next | u16::from(self.packed && self.wrap) << 15
    }

    fn expose(&mut self, id: u16, entries: Vec<Entry>) -> Result<(), Fault> {
        let fresh = entries.iter().filter(|entry| self.taken.insert(entry.at));
        let doubled = fresh.count() < entries.len();
        if doubled || self.exposed.insert(id, entries).is_some() {
            let fault = format!("buffer {id} made available again before it came back");
            return Err(("3.3.1", fault));
        }
        Ok(())
    }

    fn entry(&self, table: u64, index: u16) -> Result<Entry, Fault> {
        let at = table.wrapping_add(DESCRIPTOR * u64::from(index));
        let bytes = self.bytes(at);
        let bytes = bytes.ok_or(("2.7.5", format!("no descriptor at {at:#x}")))?;
        Ok(Entry { at, bytes })
    }

    /// A word of a ring, which the driver may write meanwhile: read as a whole.
    fn word(&self, at: u64) -> Option<u16> {
        let piece = self.memory.translate(DmaAddr(at), 2, Access::Read).ok()?;
        let word = piece.ptr.as_ptr().cast::<AtomicU16>();
        if piece.len < 2 || !word.is_aligned() {
            return None;
        }
        // SAFETY: the piece has these two bytes, aligned, and no reference of Rust covers them.
        let word = unsafe { &*word };
        Some(u16::from_le(word.load(Ordering::Acquire)))
    }

    fn bytes(&self, at: u64) -> Option<[u8; 16]> {
        let mut bytes = [0; 16];
        read(&self.memory, at, &mut bytes).then_some(bytes)
    }
}

/// Reads the driver's memory; false, if it cannot be reached.
fn read(memory: &GuestMemory, start: u64, bytes: &mut [u8]) -> bool {
    (start..).zip(bytes).all(|(at, byte)| {
        let Ok(piece) = memory.translate(DmaAddr(at), 1, Access::Read) else {
            return false;
        };
        // SAFETY: the piece is one byte that may be read and that no reference of Rust covers.
        *byte = unsafe { piece.ptr.as_ptr().read_volatile() };
        true
    })
}
