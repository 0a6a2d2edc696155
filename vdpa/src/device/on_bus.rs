//! The device as the bus and as the device tree see it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::Node;
use crate::bus::{BusDevice, ByBus, Exactness};
use crate::platform::BoxFuture;
use crate::tree::{Inspect, Report};

use super::{VdpaDevice, VdpaId, presence};

impl BusDevice for VdpaDevice {
    type Id = VdpaId;

    fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn match_name(&self) -> &'static str {
        "vdpa"
    }

    fn matches(&self, id: &VdpaId) -> bool {
        match id {
            VdpaId::Type(device_type) => *device_type == self.device_type(),
            VdpaId::Any => true,
        }
    }

    fn exactness(id: &VdpaId) -> Exactness {
        match id {
            VdpaId::Type(_) => Exactness::Exact,
            VdpaId::Any => Exactness::Wildcard,
        }
    }

    fn alias(&self) -> String {
        format!("vdpa:d{:08X}v{:08X}", self.device_type(), self.vendor_id())
    }

    fn quiesce(&self, _: ByBus<Self>) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.bring_to_rest().await;
            self.owner_slot.evict();
        })
    }

    fn leaving(&self, _: ByBus<Self>) {
        self.depart(presence::LEAVING);
    }

    fn left(&self, _: ByBus<Self>) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if !self.workers_stopped.swap(true, Ordering::AcqRel) {
                let stopped = Box::pin(async {
                    self.ops.stop_workers().await;
                    Ok(())
                });
                // Workers that do not end have no memory of anybody's: the device has been reset.
                let _ = self.in_time(stopped).await;
            }
            self.depart(presence::GONE);
        })
    }
}

/// Tells about a device without keeping it.
pub(super) struct Inspector(pub(super) Weak<VdpaDevice>);

impl Inspect for Inspector {
    fn report(&self) -> Report {
        let Some(device) = self.0.upgrade() else {
            return Report::default();
        };
        let count = |counter: &AtomicU64| format!("{}", counter.load(Ordering::Relaxed));
        let mut facts = Vec::from([
            ("type", format!("{}", device.device_type())),
            ("vendor", format!("{:#06x}", device.vendor_id())),
            ("kind", format!("{:?}", device.kind())),
            ("dma device", String::from(device.dma_device().name())),
            ("isolation", format!("{:?}", device.isolation())),
            (
                "owner",
                device
                    .owner()
                    .map_or_else(|| String::from("nobody"), |owner| format!("{owner:?}")),
            ),
            (
                "foreign maps",
                format!("{}", device.config.dma.foreign_maps()),
            ),
            ("queues", format!("{}", device.queue_count())),
            (
                "offered features",
                format!("{}", device.device_features().unwrap_or_default()),
            ),
            ("reset timeouts", count(&device.counters.reset_timeouts)),
            ("queues left ready", count(&device.counters.left_ready)),
            ("queues leaked", count(&device.counters.leaked_queues)),
        ]);
        if let Some(id) = device.config.dma.requester_id() {
            facts.push(("requester id", format!("{id:#06x}")));
        }
        if let Some(pasid) = device.config.dma.pasid() {
            facts.push(("PASID", format!("{pasid}")));
        }
        let faults = device.config.dma.dma_faults();
        if faults.count > 0 {
            facts.push(("DMA faults", format!("{faults}")));
        }
        let counted = counted(&device);
        if !counted.is_empty() {
            facts.push(("counted", counted));
        }
        if let Ok(generation) = device.config_generation() {
            facts.push(("configuration generation", format!("{generation}")));
        }
        let agreed = device.driver_features().unwrap_or_default();
        let features = agreed
            .names(device.device_type())
            .map(String::from)
            .collect();
        Report {
            facts,
            features,
            queues: Vec::new(),
        }
    }
}

/// What the device has counted for its queues, as far as it is not nothing.
fn counted(device: &VdpaDevice) -> String {
    let mut counted = String::new();
    for queue in 0..device.queue_count() {
        let counters = device.queue_statistics(queue).unwrap_or_default();
        for (name, count) in counters.into_iter().filter(|counter| counter.1 > 0) {
            let comma = if counted.is_empty() { "" } else { ", " };
            counted.push_str(&format!("{comma}queue {queue} {name} {count}"));
        }
    }
    counted
}
