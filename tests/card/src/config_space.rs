//! The PCI configuration space: bytes of which some bits can be written.
//!
//! Sources: PCI Local Bus 3.0, 6; PCI Express Base 6.0, 7.5.3; VIRTIO 1.2, 4.1.4.

use std::ops::Range;

use crate::places::{MSIX_BAR, PENDING, Places};
use crate::plan::{ListFault, Plan, PlanError, VirtioCap};
use crate::violations::Violations;

/// Bytes of a PCI Express function.
pub(crate) const SIZE: usize = 4096;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const FIRST_BAR: usize = 0x10;
const SUBSYSTEM: usize = 0x2c;
const LIST: usize = 0x34;
const FIRST_CAPABILITY: usize = 0x40;
const CAPABILITIES_END: usize = 0x100;

/// Command: memory decode, bus master, no pin interrupt.
const COMMAND_BITS: u16 = 1 << 1 | 1 << 2 | 1 << 10;
const MEMORY: u16 = 1 << 1;
const MASTER: u16 = 1 << 2;
const CAPABILITY_LIST: u8 = 1 << 4;
/// A memory register of 64 bits, prefetchable.
const MEMORY_64: u8 = 0xc;

const VENDOR: u8 = 0x09;
const EXPRESS: u8 = 0x10;
const MSIX: u8 = 0x11;
/// Device capabilities: function-level reset.
const CAN_RESET: u32 = 1 << 28;
/// Device control: begin it.
const RESET: u8 = 1 << 7;
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_MASK: u16 = 1 << 14;

/// What a write asks for beyond what it stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// A function-level reset.
    Reset,
}

/// The bytes.
#[derive(Debug)]
pub(crate) struct ConfigSpace {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    /// Where the capability of MSI-X is.
    msix: Option<usize>,
    express: usize,
    next: usize,
    last: Option<usize>,
    /// The capabilities of virtio.
    virtio: Vec<Range<usize>>,
}

impl ConfigSpace {
    pub(crate) fn new(plan: &Plan, places: &Places) -> Result<Self, PlanError> {
        let mut space = Self {
            bytes: vec![0; SIZE],
            writable: vec![0; SIZE],
            msix: None,
            express: 0,
            next: FIRST_CAPABILITY,
            last: None,
            virtio: Vec::new(),
        };
        space.header(plan);
        for bar in [0, 2, 4] {
            space.bar(bar, places.bar_size(bar));
        }
        if plan.vectors > 0 {
            let entries = (plan.vectors - 1).to_le_bytes();
            let bar = u32::from(MSIX_BAR);
            let table = plan.table_at.unwrap_or(bar);
            let pending = u32::try_from(PENDING).unwrap_or(0) | bar;
            let words = [table.to_le_bytes(), pending.to_le_bytes()].concat();
            let at = space.capability(MSIX, &[&entries[..], &words].concat())?;
            space.set_writable(at + 2, &(MSIX_ENABLE | MSIX_MASK).to_le_bytes());
            space.msix = Some(at);
        }
        let right = || places.capabilities();
        for capability in plan.capabilities.clone().unwrap_or_else(right) {
            let body = body(&capability);
            let at = space.capability(VENDOR, &body)?;
            space.virtio.push(at..at + 2 + body.len());
        }
        // Version 2, an endpoint.
        let mut express = vec![0; 58];
        express[0] = 2;
        express[2..6].copy_from_slice(&CAN_RESET.to_le_bytes());
        space.express = space.capability(EXPRESS, &express)?;
        if let Some(last) = space.last {
            space.bytes[last + 1] = match plan.list {
                ListFault::None => 0,
                ListFault::Cycle => space.bytes[LIST],
                ListFault::Misplaced => 0x10,
            };
        }
        Ok(space)
    }

    fn header(&mut self, plan: &Plan) {
        let id = plan.product.id();
        self.set(0x00, &id.vendor.to_le_bytes());
        self.set(0x02, &id.device.to_le_bytes());
        self.set_writable(COMMAND, &COMMAND_BITS.to_le_bytes());
        self.set(STATUS, &[CAPABILITY_LIST]);
        // VIRTIO 1.2, 4.1.2.1: 0 for a transitional device, at least 1 for a modern one.
        self.set(0x08, &[u8::from(id.device >= 0x1040)]);
        self.set(0x09, &plan.product.class().to_le_bytes()[..3]);
        self.set(SUBSYSTEM, &id.subvendor.to_le_bytes());
        self.set(SUBSYSTEM + 2, &id.subdevice.to_le_bytes());
        // The line of the interrupt pin, where software may note it.
        self.set_writable(0x3c, &[0xff]);
    }

    fn bar(&mut self, bar: u8, size: u64) {
        if size == 0 {
            return;
        }
        let at = FIRST_BAR + 4 * usize::from(bar);
        self.set(at, &[MEMORY_64]);
        self.set_writable(at, &(!(size - 1)).to_le_bytes());
    }

    /// Appends a capability, of which `body` follows the id and the pointer. Returns where it is.
    fn capability(&mut self, id: u8, body: &[u8]) -> Result<usize, PlanError> {
        let at = self.next;
        let end = at + 2 + body.len();
        if end > CAPABILITIES_END {
            return Err(PlanError::Capabilities);
        }
        let link = self.last.map_or(LIST, |last| last + 1);
        self.bytes[link] = u8::try_from(at).map_err(|_| PlanError::Capabilities)?;
        self.bytes[at] = id;
        self.set(at + 2, body);
        self.last = Some(at);
        self.next = end.next_multiple_of(4);
        Ok(at)
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn set_writable(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }

    /// Reads; what lies outside is all ones.
    pub(crate) fn read(&self, offset: u16, bytes: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(bytes) {
            *byte = self.bytes.get(at).copied().unwrap_or(0xff);
        }
    }

    /// Writes what can be written.
    pub(crate) fn write(
        &mut self,
        offset: u16,
        bytes: &[u8],
        violations: &mut Violations,
    ) -> Effect {
        let mut effect = Effect::None;
        let start = usize::from(offset);
        let touches = |range: &Range<usize>| start < range.end && range.start < start + bytes.len();
        if self.virtio.iter().any(touches) {
            let fault = format_args!("{offset:#x} written, in a virtio capability");
            violations.against("4.1.4.1", fault);
        }
        for (at, byte) in (usize::from(offset)..SIZE).zip(bytes) {
            // Device control follows the capabilities of the device; bit 15 always reads 0.
            if at == self.express + 9 && byte & RESET != 0 {
                effect = Effect::Reset;
            }
            let mask = self.writable[at];
            self.bytes[at] = (self.bytes[at] & !mask) | (byte & mask);
        }
        effect
    }

    /// Everything that software has set is gone.
    pub(crate) fn reset(&mut self) {
        for (byte, mask) in self.bytes.iter_mut().zip(&self.writable) {
            *byte &= !mask;
        }
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    pub(crate) fn decodes(&self) -> bool {
        self.word(COMMAND) & MEMORY != 0
    }

    pub(crate) fn is_master(&self) -> bool {
        self.word(COMMAND) & MASTER != 0
    }

    fn msix_control(&self) -> u16 {
        self.msix.map_or(0, |at| self.word(at + 2))
    }

    pub(crate) fn is_msix_enabled(&self) -> bool {
        self.msix_control() & MSIX_ENABLE != 0
    }

    pub(crate) fn is_msix_masked(&self) -> bool {
        self.msix_control() & MSIX_MASK != 0
    }

    /// Where a BAR is, if it has an address.
    pub(crate) fn bar_address(&self, bar: u8) -> Option<u64> {
        let at = FIRST_BAR + 4 * usize::from(bar);
        let half = |at: usize| u64::from(self.word(at)) | u64::from(self.word(at + 2)) << 16;
        let address = (half(at) | half(at + 4) << 32) & !0xf;
        (address != 0).then_some(address)
    }
}

/// A capability of virtio behind its id and its pointer.
fn body(capability: &VirtioCap) -> Vec<u8> {
    let mut body = vec![capability.cap_len, capability.kind, capability.bar, 0, 0, 0];
    body.extend(capability.offset.to_le_bytes());
    body.extend(capability.length.to_le_bytes());
    if capability.kind == 2 {
        body.extend(capability.multiplier.to_le_bytes());
    }
    body
}
