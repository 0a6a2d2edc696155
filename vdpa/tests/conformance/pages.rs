//! The doorbell pages of a fake device, for those who have nothing but a mapping of them.

use std::sync::{Arc, Mutex};

use vdpa::platform::Mmio;
use vdpa::testing::FakeParent;
use virtq::{Doorbell, NotifyFormat};

pub const PAGE: u64 = 4096;

/// A page for each queue of the device that was made last.
#[derive(Debug)]
pub struct DoorbellPages {
    pub queues: u16,
    pub latest: Arc<Mutex<Option<Arc<FakeParent>>>>,
}

// SAFETY: there are no registers.
unsafe impl Mmio for DoorbellPages {
    fn len(&self) -> u64 {
        u64::from(self.queues) * PAGE
    }

    fn read8(&self, _offset: u64) -> u8 {
        0
    }

    fn read16(&self, _offset: u64) -> u16 {
        0
    }

    fn read32(&self, _offset: u64) -> u32 {
        0
    }

    unsafe fn write8(&self, _offset: u64, _value: u8) {}

    /// The index of its queue, at the start of a page, rings.
    unsafe fn write16(&self, offset: u64, value: u16) {
        if offset == u64::from(value) * PAGE
            && let Some(device) = &*self.latest.lock().unwrap()
        {
            device.kick(value).raise();
        }
    }

    unsafe fn write32(&self, _offset: u64, _value: u32) {}

    unsafe fn doorbell(
        &self,
        _offset: u64,
        _index: u16,
        _format: NotifyFormat,
    ) -> Option<Doorbell> {
        None
    }
}
