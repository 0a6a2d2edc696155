//! From a device that has been found to one that runs (VIRTIO 1.2, 3.1.1).

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use vdpa::Features;
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use virtio::DeviceStatus;

use super::fixed::FixedConfig;
use super::monitor::Monitor;
use super::status::RUNNING;
use super::{Transport, VirtioClaim, VirtioDevice};

/// What the queues and the transport understand, whatever the device type.
fn transport_features() -> Features {
    Features::from(
        virtio::F::VERSION_1
            | virtio::F::EVENT_IDX
            | virtio::F::INDIRECT_DESC
            | virtio::F::ACCESS_PLATFORM
            | virtio::F::RING_PACKED
            | virtio::F::IN_ORDER
            | virtio::F::NOTIFICATION_DATA
            | virtio::F::ORDER_PLATFORM,
    )
}

impl VirtioClaim {
    /// Resets the device and agrees with it on features: those of `supported` that it offers, at
    /// least those of `required`, and what the transport understands. Returns what was agreed.
    ///
    /// # Errors
    /// [`OpError::Unsupported`], if the device lacks a required feature or `VIRTIO_F_VERSION_1`;
    /// [`OpError::FeaturesRefused`], if it does not accept the set; whatever else it answers.
    pub fn negotiate(
        &self,
        supported: Features,
        required: Features,
    ) -> BoxFuture<'_, Result<Features, OpError>> {
        Box::pin(self.negotiate_in_turn(supported, required))
    }

    async fn negotiate_in_turn(
        &self,
        supported: Features,
        required: Features,
    ) -> Result<Features, OpError> {
        let _turn = self.turn.lock().await;
        self.usable()?;
        self.reset_in_turn().await?;
        let transport = self.transport()?;
        if !transport
            .info()
            .abilities
            .contains(Abilities::PERSISTENT_MAPS)
        {
            self.memory.space.detach();
            self.memory.space.attach(transport.map_target())?;
        }
        let required = required | virtio::F::VERSION_1.into();
        let is_net = self.device_type == virtio::Id::Net;
        let choose = |offered: Features| {
            let both = offered.intersection(supported | required | transport_features());
            if is_net { without_orphans(both) } else { both }
        };
        let agreed = agree(&transport, required, &choose).await?;
        self.state.lock().features = agreed;
        Ok(agreed)
    }

    /// Lets the device run, after its queues have been created. From then on the driver must
    /// [reset](Self::reset) it before it drops a queue, also when the rest of its probe fails.
    ///
    /// If it fails, the device has been reset and every queue is down.
    ///
    /// # Errors
    /// [`OpError::WrongState`] before [`negotiate`](Self::negotiate); whatever the device answers,
    /// of which [`OpError::VectorRefused`] and [`OpError::OutOfResources`] are about interrupts.
    pub fn start(&self) -> BoxFuture<'_, Result<(), OpError>> {
        Box::pin(self.start_in_turn())
    }

    async fn start_in_turn(&self) -> Result<(), OpError> {
        let _turn = self.turn.lock().await;
        self.usable()?;
        let result = self.try_start().await;
        if result.is_err() {
            // The reason of the failure is what counts; a failed reset has been logged and counted.
            let _ = self.reset_in_turn().await;
        }
        result
    }
}

impl VirtioDevice {
    async fn try_start(self: &Arc<Self>) -> Result<(), OpError> {
        self.check()?;
        let monitor = Arc::<Monitor>::default();
        let transport = self.transport()?;
        let features = self.state.lock().features;
        let fixed = FixedConfig::read(&transport, features)?;
        self.state.lock().fixed = fixed;
        transport.set_config_event(Arc::clone(monitor.event()))?;
        // The device reads and writes the queues from DRIVER_OK on, not before (VIRTIO 1.2, 2.1.2).
        self.hold.hold();
        transport.set_status(RUNNING).await?;
        self.state.lock().monitor = Some(Arc::clone(&monitor));
        monitor.watch(self);
        // A removal between the check and here has raised no monitor.
        self.check()?;
        self.announce(&transport);
        Ok(())
    }

    fn announce(&self, transport: &Arc<dyn Transport>) {
        let features = self.state.lock().features;
        let names: Vec<Cow<'static, str>> = features
            .names(u32::from(u8::from(self.device_type)))
            .collect();
        log::info!(
            "{} on {}: features {}",
            self.node.name(),
            transport.info().node.name(),
            if names.is_empty() {
                String::from("none")
            } else {
                names.join(" ")
            },
        );
    }
}

/// Without the features of a network device that need another one which is not there (VIRTIO 1.2,
/// 2.2.1 and 5.1.3.1).
fn without_orphans(features: Features) -> Features {
    use virtio::net::F;
    let needs = [
        (
            F::CTRL_RX | F::CTRL_VLAN | F::GUEST_ANNOUNCE | F::MQ | F::CTRL_MAC_ADDR | F::RSS,
            F::CTRL_VQ,
        ),
        (F::GUEST_TSO4 | F::GUEST_TSO6 | F::GUEST_UFO, F::GUEST_CSUM),
        (F::HOST_TSO4 | F::HOST_TSO6 | F::HOST_UFO, F::CSUM),
    ];
    needs.into_iter().fold(features, |rest, (orphans, needed)| {
        if rest.contains(needed) {
            rest
        } else {
            rest.difference(orphans.into())
        }
    })
}

/// Agrees on features with a device that has been reset: those that `choose` picks from what it
/// offers, which must have all that are `required`.
pub(super) async fn agree(
    transport: &Arc<dyn Transport>,
    required: Features,
    choose: &(dyn Fn(Features) -> Features + Sync),
) -> Result<Features, OpError> {
    let mut status = DeviceStatus::ACKNOWLEDGE;
    transport.set_status(status).await?;
    status |= DeviceStatus::DRIVER;
    transport.set_status(status).await?;

    let agreed = choose(transport.device_features()?);
    if !agreed.contains(required) {
        // VIRTIO 1.2, 3.1.1: a driver that gives up says so. The reset follows in any case.
        let _ = transport.set_status(status | DeviceStatus::FAILED).await;
        return Err(OpError::Unsupported);
    }
    transport.set_driver_features(agreed)?;
    status |= DeviceStatus::FEATURES_OK;
    transport.set_status(status).await?;
    Ok(agreed)
}
