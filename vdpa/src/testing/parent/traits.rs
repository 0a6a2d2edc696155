//! What can be chosen about a fake device.

use alloc::vec::Vec;

use crate::iotlb::IovaRange;
use crate::ops::{Abilities, NotificationArea};

/// What a fake device is like, beyond its features, its queues and its configuration.
#[derive(Clone, Debug)]
pub struct Traits {
    /// What it can do.
    pub abilities: Abilities,
    /// Who translates its addresses.
    pub translation: Translation,
    /// The addresses that it can use, where it translates them.
    pub iova_range: IovaRange,
    /// How many address spaces it has.
    pub spaces: u16,
    /// The group of each queue, by index; a queue without is in group 0.
    pub groups: Vec<u16>,
    /// How many groups there are.
    pub group_count: u16,
    /// The group of the rings of every queue, if it differs.
    pub descriptor_group: Option<u16>,
    /// Where the doorbell of queue 0 lies, and those of the others after it, if they can be given
    /// away.
    pub doorbells: Option<NotificationArea>,
}

impl Default for Traits {
    /// One group and one address space of the platform's, with everything that software can do.
    fn default() -> Self {
        Self {
            abilities: Abilities::SUSPEND
                | Abilities::RESUME
                | Abilities::QUEUE_STATE
                | Abilities::DIRTY_LOG,
            translation: Translation::Platform,
            iova_range: IovaRange::ALL,
            spaces: 1,
            groups: Vec::new(),
            group_count: 1,
            descriptor_group: None,
            doorbells: None,
        }
    }
}

/// Who translates the addresses of a fake device. Its queues are served in the platform's memory in
/// any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Translation {
    /// The platform.
    #[default]
    Platform,
    /// The device, which is told of each change.
    Incremental,
    /// The device, which is given each address space as a whole.
    Whole,
}
