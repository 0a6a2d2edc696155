//! What a virtio device tells about itself, for people.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use vdpa::device::type_name;
use vdpa::ops::OpError;
use vdpa::tree::{Inspect, QueueReport, Report};

use super::VirtioDevice;

/// Tells about a device without keeping it.
pub(super) struct Inspector(pub(super) Weak<VirtioDevice>);

impl Inspect for Inspector {
    fn report(&self) -> Report {
        let Some(device) = self.0.upgrade() else {
            return Report::default();
        };
        let condition = match device.check() {
            Ok(()) => "working",
            Err(OpError::Broken) => "broken",
            Err(_) => "gone",
        };
        let mut facts = Vec::from([
            (
                "type",
                type_name(u32::from(u8::from(device.device_type))).into_owned(),
            ),
            ("condition", String::from(condition)),
            (
                "failures",
                format!("{}", device.failures.load(Ordering::Relaxed)),
            ),
        ]);
        if let Ok(status) = device.transport().and_then(|way| way.status()) {
            let names: Vec<_> = status.iter_names().map(|(name, _)| name).collect();
            facts.push(("status", names.join(" ")));
        }
        let state = device.state.lock();
        let device_type = u32::from(u8::from(device.device_type));
        let features = state
            .features
            .names(device_type)
            .map(Cow::into_owned)
            .collect();
        let queues = state.queues.iter().map(|queue| QueueReport {
            index: queue.index,
            name: queue.name,
            size: queue.size,
            counters: queue.statistics.snapshot(),
            interrupts: queue.event.count(),
        });
        Report {
            facts,
            features,
            queues: queues.collect(),
        }
    }
}
