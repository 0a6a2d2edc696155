//! A virtio function that has been brought up as far as the vDPA bus needs it.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use pci::{BusMaster, Claim, Msix, PciDevice};
use spin::Mutex;
use vdpa::bus::ProbeError;
use vdpa::ops::OpError;
use vdpa::platform::Callback;
use vdpa::{Features, Platform};
use virtio::DeviceStatus;

use super::config_fields;
use super::demands::{Demands, Shown};
use super::discovery::{discover, reset};
use super::function::VirtioFunction;
use super::interrupts::Interrupts;
use super::queue_state::{QueueFacts, QueueState};
use super::states::StateRegisters;
use super::unsuitable::Unsuitable;

/// A virtio function with the operations of a vDPA device.
pub struct Parent {
    // Dropped in this order: interrupts off, bus master off, registers given back.
    pub(super) state: Mutex<State>,
    master: Arc<BusMaster>,
    pub(super) virtio: VirtioFunction,
    pub(super) claim: Claim,
    pub(super) platform: Arc<dyn Platform>,
    pub(super) device_type: u32,
    pub(super) vendor: u32,
    /// What the function offers, and of that what its driver may use.
    pub(super) offered: Features,
    pub(super) features: Features,
    /// Without these no driver is let through.
    pub(super) demanded: Features,
    /// The function offers `VIRTIO_F_SUSPEND`, which is negotiated on behalf of every driver.
    pub(super) can_suspend: bool,
    /// What it has beside the registers of virtio.
    pub(super) states: Option<Box<dyn StateRegisters>>,
    pub(super) queues: Vec<QueueFacts>,
    /// What its configuration said when it was last driven; without a driver it is not asked
    /// (VIRTIO 1.2, 3.1.1).
    pub(super) idle_config: Mutex<Vec<u8>>,
    vectors: usize,
}

/// What has been set since the last reset.
#[derive(Default)]
pub(super) struct State {
    pub(super) interrupts: Option<Interrupts>,
    pub(super) driver_features: Features,
    pub(super) config_callback: Option<Callback>,
    pub(super) queues: Vec<QueueState>,
    /// A queue did not stop in time. Until then no other is waited for, so that stopping all of
    /// them is soon done.
    pub(super) gave_up_until: Duration,
}

impl Parent {
    /// Takes the function and resets it.
    ///
    /// # Errors
    /// [`ProbeError`]: the function cannot be driven; its configuration space is as before.
    pub(crate) async fn probe(
        function: &Arc<PciDevice>,
        platform: &Arc<dyn Platform>,
        demands: Demands,
    ) -> Result<Self, ProbeError> {
        let claim = function.claim();
        let claim = claim.map_err(|error| ProbeError::unsuitable(Unsuitable::Claim(error)))?;
        // SAFETY: the registers are written as the operations of the vDPA device say.
        let opened = unsafe { VirtioFunction::open(&claim, demands.bars) };
        let virtio = opened.map_err(|error| ProbeError::unsuitable(Unsuitable::Open(error)))?;
        let msix = claim.msix();
        let msix = msix.map_err(|error| ProbeError::unsuitable(Unsuitable::Msix(error)))?;
        let found = discover(&virtio, &**platform, &demands, msix.as_ref()).await?;
        let vectors = msix.as_ref().map_or(0, Msix::size);
        drop(msix);
        // SAFETY: the function is reset, and who uses the operations of the vDPA device answers for
        // its rings.
        let master = Arc::new(unsafe { claim.enable_bus_master() });
        let shown = Shown {
            claim: &claim,
            virtio: &virtio,
            device_type: demands.device_type,
            queues: found.queues.len(),
        };
        let states = (demands.states)(&shown, demands.row);
        let state = State {
            queues: fresh_queues(found.queues.len()),
            ..State::default()
        };
        let mut parent = Self {
            state: Mutex::new(state),
            master,
            virtio,
            claim,
            platform: Arc::clone(platform),
            device_type: demands.device_type,
            vendor: u32::from(function.identity().subvendor),
            offered: found.offered,
            features: found.features,
            demanded: demands.features,
            can_suspend: found.offered.contains(virtio::F::SUSPEND),
            states: None,
            queues: found.queues,
            idle_config: Mutex::new(found.config),
            vectors,
        };
        if let Some(states) = states {
            parent.stop_with(states);
        }
        Ok(parent)
    }

    /// From now on queues are stopped and set with these registers.
    fn stop_with(&mut self, states: Box<dyn StateRegisters>) {
        let replaced =
            virtio::F::RING_RESET | virtio::F::RING_PACKED | virtio::F::NOTIFICATION_DATA;
        self.features = self.features.difference(replaced.into());
        self.can_suspend = false;
        // Nobody has asked for what may have been left running.
        let _ = states.stop_log();
        self.states = Some(states);
    }

    /// What keeps the function from memory when the machine ends.
    pub(super) fn bus_master(&self) -> Weak<BusMaster> {
        Arc::downgrade(&self.master)
    }

    /// How many MSI-X vectors the function has.
    pub(super) fn vectors(&self) -> usize {
        self.vectors
    }

    /// Resets the device, and forgets what was set even if it does not come out of the reset: no
    /// callback is called afterwards.
    pub(super) async fn reset_device(&self) -> Result<(), OpError> {
        if let Some(states) = &self.states {
            // A reset of the virtio registers need not end the log.
            let _ = states.stop_log();
        }
        self.remember_config();
        let result = reset(&self.virtio, &*self.platform).await;
        let fresh = State {
            queues: fresh_queues(self.queues.len()),
            ..State::default()
        };
        let old = core::mem::replace(&mut *self.state.lock(), fresh);
        drop(old);
        result
    }
}

impl Parent {
    /// Reads from the configuration of a device that is driven, or what is remembered of it.
    pub(super) fn config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), OpError> {
        if self.raw_status()?.contains(DeviceStatus::DRIVER)
            || config_fields::of(self.device_type).is_none()
        {
            let (device_type, offered) = (self.device_type, self.offered);
            self.virtio
                .read_config(device_type, offered, offset, bytes)?;
            return self.raw_status().map(drop);
        }
        bytes.fill(0);
        let config = self.idle_config.lock();
        let start = usize::try_from(offset).map_err(|_| OpError::OutOfRange)?;
        for (byte, known) in bytes.iter_mut().zip(config.iter().skip(start)) {
            *byte = *known;
        }
        Ok(())
    }

    /// Remembers the configuration of a device that is about to be without a driver.
    fn remember_config(&self) {
        let driven = |status: DeviceStatus| status.contains(DeviceStatus::FEATURES_OK);
        if !self.raw_status().is_ok_and(driven) {
            return;
        }
        let copy = self.virtio.copy_config(self.device_type, self.offered);
        if let (Ok(copy), Ok(_)) = (copy, self.raw_status()) {
            *self.idle_config.lock() = copy;
        }
    }
}

fn fresh_queues(count: usize) -> Vec<QueueState> {
    vec![QueueState::default(); count]
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parent({:?}, {} queues)", self.claim, self.queues.len())
    }
}
