//! What can sit on a bus of the segment.

use std::ops::Range;
use std::sync::Arc;

use virtq::Doorbell;

use super::tree::FakeBus;

/// A function, as the segment sees it.
pub trait Slot: Send + Sync {
    /// Reads a double word of the configuration space.
    fn read(&self, offset: u16) -> u32;
    /// Writes one.
    fn write(&self, offset: u16, value: u32);
    /// Writes half of one.
    fn write16(&self, offset: u16, value: u16);
    /// The range of every memory register that has an address.
    fn memory(&self) -> Vec<(usize, Range<u64>)>;
    /// Whether the function answers to its memory addresses.
    fn decodes(&self) -> bool;
    /// What lies behind its BARs.
    fn model(&self) -> Option<&dyn BarModel>;
    /// The bus behind a bridge.
    fn behind(&self) -> Option<&Arc<FakeBus>> {
        None
    }
    /// The memory that a bridge lets through.
    fn bridge_window(&self) -> Option<Range<u64>> {
        None
    }
}

/// What lies behind a function's BARs.
pub trait BarModel: Send + Sync {
    /// An access of `width` bytes; the value is in the low ones.
    fn read(&self, bar: usize, offset: u64, width: u8) -> u32;
    /// As for `read`.
    fn write(&self, bar: usize, offset: u64, width: u8, value: u32);
    /// A notification register.
    fn doorbell(&self, _bar: usize, _offset: u64, _index: u16) -> Option<Doorbell> {
        None
    }
}
