//! A device on a bus of its own, which belongs to one check.

use alloc::format;
use alloc::sync::Arc;
use core::time::Duration;

use virtio::DeviceStatus;
use virtq::{DmaAddr, RingState};

use crate::Features;
use crate::device::{DeviceKind, Removal, Removed, VdpaBus, VdpaClaim, VdpaDeviceConfig};
use crate::features::ring_features;
use crate::keeper::hold;
use crate::ops::{OpError, QueueAddress};
use crate::platform::Platform;
use crate::tree::Node;

use super::Subject;
use super::verdict::{OrFail, Stop, Verdict, equal, skip_unless};

/// How long a device may take for anything.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing must happen, for it to count as not happening.
const CALM: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_millis(1);

/// The device under test.
pub(super) struct Bench<'s> {
    pub(super) subject: &'s dyn Subject,
    pub(super) platform: Arc<dyn Platform>,
    pub(super) device: VdpaClaim,
    bus: Arc<VdpaBus>,
    _root: Arc<Node>,
}

/// The format of the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Split,
    Packed,
}

impl<'s> Bench<'s> {
    /// A device that nobody has used.
    pub(super) async fn new(subject: &'s dyn Subject) -> Result<Self, Stop> {
        let platform = subject.platform();
        let ops = subject.make().await.or_fail("the subject makes a device")?;
        let root = Node::root("conformance");
        let bus = VdpaBus::new("conformance");
        let config = VdpaDeviceConfig {
            parent: Arc::clone(&root),
            dma: subject.unit(&root),
            platform: Arc::clone(&platform),
            kind: DeviceKind::Pf,
            name: None,
        };
        let registered = bus.register(ops, config).await;
        let registered = registered.or_fail("the bus takes the device")?;
        let held = hold(&bus, &registered).await;
        Ok(Self {
            subject,
            platform,
            device: held
                .ok_or("the device is given to a driver")
                .or_fail("a claim")?,
            bus,
            _root: root,
        })
    }

    /// Whatever the check has left behind, the device can be reset and goes.
    pub(super) async fn finish(self) -> Verdict {
        let removed = self.remove().await;
        equal("the end of the device", &removed, &Removed::Clean)
    }

    pub(super) async fn remove(&self) -> Removed {
        self.bus.unregister(&self.device, Removal::Orderly).await
    }

    /// The formats of rings that the device offers.
    pub(super) fn formats(&self) -> Result<&'static [Format], Stop> {
        let offered = self.device.device_features();
        let packed = offered
            .or_fail("the features offered")?
            .contains(virtio::F::RING_PACKED);
        Ok(if packed {
            &[Format::Split, Format::Packed]
        } else {
            &[Format::Split]
        })
    }

    pub(super) fn needs_packed(&self) -> Verdict {
        let packed = self.formats()?.contains(&Format::Packed);
        skip_unless(packed, "it does not offer packed rings")
    }

    /// What a careful driver accepts besides `extra`: what it must, and the ring format.
    pub(super) fn wanted(&self, format: Format, extra: Features) -> Result<Features, Stop> {
        let offered = self.device.device_features();
        let mut wanted = extra
            | Features::from(virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM)
            | Features::from(virtio::F::ORDER_PLATFORM);
        if format == Format::Packed {
            wanted = wanted | virtio::F::RING_PACKED.into();
        }
        Ok(offered
            .or_fail("the features offered")?
            .intersection(wanted))
    }

    /// Resets the device and goes as far as `FEATURES_OK`.
    pub(super) async fn negotiate(&self, features: Features) -> Verdict {
        let device = &self.device;
        device.reset().await.or_fail("reset")?;
        for status in [DeviceStatus::ACKNOWLEDGE, driver()] {
            let set = device.set_status(status).await;
            set.or_fail(format!("status {:#x}", status.bits()))?;
        }
        let set = device.set_driver_features(features);
        set.or_fail(format!("features {features}"))?;
        device.set_status(agreed()).await.or_fail("FEATURES_OK")
    }

    /// As [`negotiate`](Self::negotiate), with what a careful driver accepts.
    pub(super) async fn agree(&self, format: Format) -> Verdict {
        let features = self.wanted(format, Features::EMPTY)?;
        self.negotiate(features).await
    }

    /// Sets `DRIVER_OK`.
    pub(super) async fn start(&self) -> Verdict {
        self.device.set_status(running()).await.or_fail("DRIVER_OK")
    }

    /// Where new queues of the format start.
    pub(super) fn ring_start(&self, features: Features) -> RingState {
        RingState::start(ring_features(features))
    }

    /// The smallest legal size of a queue that leaves room for an exchange or two.
    pub(super) fn queue_size(&self, queue: u16) -> Result<u16, Stop> {
        let limits = self.device.queue_size_limits(queue);
        let (smallest, largest) = limits.or_fail("the sizes of a queue")?;
        let size = 8.max(smallest).checked_next_power_of_two();
        Ok(size.map_or(largest, |size| size.min(largest)))
    }

    /// Asks every millisecond until there is an answer, or patience ends.
    pub(super) async fn wait<T>(&self, answer: impl FnMut() -> Option<T>) -> Option<T> {
        self.wait_for(PATIENCE, answer).await
    }

    /// Whether nothing is answered for a while.
    pub(super) async fn stays_calm<T>(&self, answer: impl FnMut() -> Option<T>) -> bool {
        self.wait_for(CALM, answer).await.is_none()
    }

    async fn wait_for<T>(
        &self,
        patience: Duration,
        mut answer: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let deadline = self.platform.now().saturating_add(patience);
        loop {
            if let Some(answer) = answer() {
                return Some(answer);
            }
            if self.platform.now() >= deadline {
                return None;
            }
            self.platform.sleep(LOOK).await;
        }
    }
}

/// Gives the first queue, which never runs then, addresses that mean nothing.
pub(super) fn place_nowhere(device: &VdpaClaim) -> Result<(), OpError> {
    let address = QueueAddress {
        descriptor: DmaAddr(0x1_0000),
        driver: DmaAddr(0x2_0000),
        device: DmaAddr(0x3_0000),
    };
    // SAFETY: the queue never runs.
    unsafe { device.set_queue_address(0, address) }
}

pub(super) fn driver() -> DeviceStatus {
    DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER
}

pub(super) fn agreed() -> DeviceStatus {
    driver() | DeviceStatus::FEATURES_OK
}

pub(super) fn running() -> DeviceStatus {
    agreed() | DeviceStatus::DRIVER_OK
}
