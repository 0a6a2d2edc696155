//! What a device does with its requests, whatever its type.

use std::fmt;

use virtq::device::{Chain, DeviceQueue};

use crate::error::QueueError;
use crate::memory::QueueMemory;

/// What a device does.
pub trait Service: fmt::Debug + Send + Sync {
    /// Whether the device can work with what the driver has chosen of its features.
    fn accepts(&self, features: u64) -> bool;

    /// Answers a request, and says how many bytes it has written to the writable part of the chain,
    /// from its start on. It is called by the queue's thread, for one chain after the other. After
    /// the program was killed a request may come again.
    fn serve(&self, queue: u16, ring: &DeviceQueue<QueueMemory>, chain: &Chain) -> u32;

    /// A queue is not served any more.
    fn failed(&self, queue: u16, error: &QueueError);
}
