//! The common configuration structure.
//!
//! Several of its registers show what another one selects, so selector and register are used under
//! one lock. It is a plain spin lock: an interrupt handler must not use the structure. 64-bit
//! fields are two 32-bit accesses, the lower half first.
//!
//! Source: VIRTIO 1.2, 4.1.3.1 and 4.1.4.3.

use core::fmt;

use spin::{Mutex, MutexGuard};
use vdpa::Features;
use vdpa::ops::QueueAddress;
use virtio::DeviceStatus;
use virtq::DmaAddr;

use super::window::Window;

/// What a vector register holds when no vector is set, or when the device has refused one.
pub const NO_VECTOR: u16 = 0xffff;

const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_MSIX_VECTOR: u64 = 0x10;
const NUM_QUEUES: u64 = 0x12;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_MSIX_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;
const QUEUE_RESET: u64 = 0x3a;

/// The registers of the common configuration.
pub struct CommonConfig {
    window: Window,
    /// Held from writing a selector to the last use of what it selects.
    selector: Mutex<()>,
}

impl CommonConfig {
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            selector: Mutex::new(()),
        }
    }

    /// The features that the device offers.
    #[must_use]
    pub fn device_features(&self) -> Features {
        let _selector = self.selector.lock();
        Features::from_words([0, 1, 2, 3].map(|select| {
            self.window.write32(DEVICE_FEATURE_SELECT, select);
            self.window.read32(DEVICE_FEATURE)
        }))
    }

    /// Tells the device which of the features that it offers the driver uses.
    pub fn set_driver_features(&self, features: Features, offered: Features) {
        let _selector = self.selector.lock();
        for (select, word) in features.words_for(offered) {
            self.window.write32(DRIVER_FEATURE_SELECT, select);
            self.window.write32(DRIVER_FEATURE, word);
        }
    }

    /// Sets the vector for configuration changes; returns what the device has taken.
    pub fn set_config_vector(&self, vector: u16) -> u16 {
        self.window.write16(CONFIG_MSIX_VECTOR, vector);
        self.window.read16(CONFIG_MSIX_VECTOR)
    }

    /// How many queues the device has.
    #[must_use]
    pub fn num_queues(&self) -> u16 {
        self.window.read16(NUM_QUEUES)
    }

    /// The device status; `None` if every bit is set, because then nobody answers.
    #[must_use]
    pub fn status(&self) -> Option<DeviceStatus> {
        let bits = self.window.read8(DEVICE_STATUS);
        (bits != u8::MAX).then(|| DeviceStatus::from_bits_retain(bits))
    }

    /// Sets the device status; no bit resets the device.
    pub fn set_status(&self, status: DeviceStatus) {
        self.window.write8(DEVICE_STATUS, status.bits());
    }

    /// A number that changes with the device-specific configuration.
    #[must_use]
    pub fn config_generation(&self) -> u8 {
        self.window.read8(CONFIG_GENERATION)
    }

    /// The registers of one queue, to the exclusion of the others while the value lives. It must
    /// not live across an await.
    #[must_use]
    pub fn queue(&self, index: u16) -> QueueRegisters<'_> {
        let selector = self.selector.lock();
        self.window.write16(QUEUE_SELECT, index);
        QueueRegisters {
            window: &self.window,
            _selector: selector,
        }
    }

    /// Whether the register that resets one queue is there.
    #[must_use]
    pub fn has_queue_reset(&self) -> bool {
        self.window.len() >= QUEUE_RESET + 2
    }
}

/// The registers of the queue that is selected.
pub struct QueueRegisters<'a> {
    window: &'a Window,
    _selector: MutexGuard<'a, ()>,
}

impl QueueRegisters<'_> {
    /// The size; after a reset the largest that the device can do, 0 if there is no such queue.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.window.read16(QUEUE_SIZE)
    }

    /// Sets the size; returns what the device has taken.
    pub fn set_size(&self, size: u16) -> u16 {
        self.window.write16(QUEUE_SIZE, size);
        self.size()
    }

    /// Sets the vector; returns what the device has taken.
    pub fn set_vector(&self, vector: u16) -> u16 {
        self.window.write16(QUEUE_MSIX_VECTOR, vector);
        self.window.read16(QUEUE_MSIX_VECTOR)
    }

    /// Whether the device processes the queue: 1 or 0, anything else is no answer.
    #[must_use]
    pub fn enabled(&self) -> u16 {
        self.window.read16(QUEUE_ENABLE)
    }

    /// Lets the device process the queue.
    pub fn enable(&self) {
        self.window.write16(QUEUE_ENABLE, 1);
    }

    /// Tells a device that knows how to stop a queue so to do it; plain virtio forbids this.
    pub(super) fn disable(&self) {
        self.window.write16(QUEUE_ENABLE, 0);
    }

    /// Where the queue's notification register is, in units of the notify multiplier.
    #[must_use]
    pub fn notify_off(&self) -> u16 {
        self.window.read16(QUEUE_NOTIFY_OFF)
    }

    /// Sets where the queue lies.
    pub fn set_address(&self, address: QueueAddress) {
        let write = |offset, DmaAddr(address)| {
            let (low, high) = halves(address);
            self.window.write32(offset, low);
            self.window.write32(offset + 4, high);
        };
        write(QUEUE_DESC, address.descriptor);
        write(QUEUE_DRIVER, address.driver);
        write(QUEUE_DEVICE, address.device);
    }

    /// Begins to reset the queue.
    pub fn reset(&self) {
        self.window.write16(QUEUE_RESET, 1);
    }

    /// The register that is 1 while the queue is being reset and 0 afterwards.
    #[must_use]
    pub fn resetting(&self) -> u16 {
        self.window.read16(QUEUE_RESET)
    }
}

/// The two 32-bit halves, the lower first.
fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

impl fmt::Debug for CommonConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommonConfig({:?})", self.window)
    }
}

impl fmt::Debug for QueueRegisters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueRegisters({:?})", self.window)
    }
}
