//! What devices tell about themselves. Console, page and JSON all show these reports.
//!
//! With the feature `serde` a [`NodeReport`] can be written as JSON.

use alloc::string::String;
use alloc::vec::Vec;

/// What can tell about itself.
pub trait Inspect: Send + Sync {
    /// What there is to tell now.
    fn report(&self) -> Report;
}

/// What a device tells about itself, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names and values.
    pub facts: Vec<(&'static str, String)>,
    /// The features in use, by name.
    pub features: Vec<String>,
    /// The queues, by index.
    pub queues: Vec<QueueReport>,
}

/// What a queue tells about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueReport {
    /// The index in the device.
    pub index: u16,
    /// What the driver uses it for.
    pub name: &'static str,
    /// The number of descriptors.
    pub size: u16,
    /// What went through it.
    pub counters: virtq::Snapshot,
    /// How often the device has raised its interrupt.
    pub interrupts: u64,
}

/// A device of the tree as it was at one moment, with everything below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct NodeReport {
    /// Its name, as in `vdpa0`.
    pub name: String,
    /// The driver that has claimed it.
    pub driver: Option<String>,
    /// What it says about itself: [`Report::facts`].
    #[cfg_attr(feature = "serde", serde(serialize_with = "json::facts"))]
    pub facts: Vec<(&'static str, String)>,
    /// The features in use, by name.
    pub features: Vec<String>,
    /// Its queues.
    pub queues: Vec<QueueReport>,
    /// The devices on it.
    pub children: Vec<Self>,
}

#[cfg(feature = "serde")]
mod json {
    use alloc::string::String;

    use serde::Serialize;
    use serde::ser::{SerializeStruct, Serializer};

    use super::QueueReport;

    #[derive(Serialize)]
    struct Fact<'a> {
        name: &'static str,
        value: &'a str,
    }

    pub(super) fn facts<S: Serializer>(
        facts: &[(&'static str, String)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(facts.iter().map(|(name, value)| Fact { name, value }))
    }

    /// The counters stand among the other members.
    impl Serialize for QueueReport {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut queue = serializer.serialize_struct("Queue", 8)?;
            queue.serialize_field("index", &self.index)?;
            queue.serialize_field("name", self.name)?;
            queue.serialize_field("size", &self.size)?;
            queue.serialize_field("added", &self.counters.added)?;
            queue.serialize_field("used", &self.counters.used)?;
            queue.serialize_field("kicks", &self.counters.kicks)?;
            queue.serialize_field("suppressed", &self.counters.suppressed)?;
            queue.serialize_field("interrupts", &self.interrupts)?;
            queue.end()
        }
    }
}
