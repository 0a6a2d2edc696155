//! `sim-net`: a network card without a network (VIRTIO 1.2, 5.1).
//!
//! What it sends comes back to it, or to the card at the other end of a [`Cable`]. The control
//! queue has a group, and so an address space, of its own.

mod cable;
mod card;
mod checksum;
mod config;
mod control;
mod counters;
mod filter;
mod forward;
mod frame;
mod model;
mod places;
mod receive;

use alloc::boxed::Box;
use alloc::sync::Arc;

use vdpa::MacAddress;
use vdpa::{Features, Platform, VdpaOps};

use super::bell::Bell;
use super::device::{Device, creation_step};
use super::engine::{base_offer, ring_offer};
use super::launch::launch;
use super::model::Change;
use super::{CreateError, SimConfig};

pub use self::cable::{Cable, CableEnd};

use self::card::NetModel;

/// The smallest IP MTU that a device may have (VIRTIO 1.2, 5.1.4.1).
const MTU_MIN: u16 = 68;

/// What a simulated network card is made from.
#[derive(Debug)]
pub struct SimNetConfig {
    /// Its address.
    pub mac: MacAddress,
    /// The longest IP packet in bytes.
    pub mtu: u16,
    /// How many pairs of a receive and a transmit queue there are, at most
    /// [`SimNet::QUEUE_PAIRS_MAX`].
    pub queue_pairs: u16,
    /// Whether it is connected.
    pub link: Link,
    /// To what it is connected.
    pub wiring: Wiring,
    /// What happens to a frame while no buffer is there for it.
    pub overrun: Overrun,
    /// What it has in common with other simulated devices.
    pub sim: SimConfig,
}

impl Default for SimNetConfig {
    fn default() -> Self {
        Self {
            mac: MacAddress([0x02, 0, 0, 0, 0, 1]),
            mtu: 1500,
            queue_pairs: 1,
            link: Link::default(),
            wiring: Wiring::default(),
            overrun: Overrun::default(),
            sim: SimConfig::default(),
        }
    }
}

/// Whether a card is connected. One that is not loses what it is to send, and counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Frames get through.
    #[default]
    Up,
    /// They do not.
    Down,
}

/// Where the frames of a card go.
#[derive(Debug, Default)]
pub enum Wiring {
    /// Back to it.
    #[default]
    Loopback,
    /// To the card with the other end.
    Cable(CableEnd),
}

/// What happens to a frame while the receiver has no buffer for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overrun {
    /// It waits, and so does the sender, for as long as the receiver's driver takes: nothing is
    /// lost, and a driver that offers no buffers brings its sender to a halt.
    #[default]
    Wait,
    /// It is lost and counted, as in a network.
    Drop,
}

/// A simulated network card, for its maker. It holds the device's state, not the device.
#[derive(Clone)]
pub struct SimNet(Arc<Device<NetModel>>);

impl SimNet {
    /// The most pairs of queues that a device can have.
    pub const QUEUE_PAIRS_MAX: u16 = 32;

    /// Everything that the device can offer.
    #[must_use]
    pub fn features() -> Features {
        config::features() | ring_offer() | base_offer()
    }

    /// Makes a network card, whose worker runs until the operations are dropped or told to stop it.
    ///
    /// # Errors
    /// [`CreateError`]: nothing is left of the device.
    pub fn new(
        config: SimNetConfig,
        platform: &Arc<dyn Platform>,
    ) -> Result<(Self, Box<dyn VdpaOps>), CreateError> {
        if config.queue_pairs == 0 || config.queue_pairs > Self::QUEUE_PAIRS_MAX {
            return Err(CreateError::BadQueueCount);
        }
        if !config.mac.is_unicast() {
            return Err(CreateError::BadMac);
        }
        if config.mtu < MTU_MIN {
            return Err(CreateError::BadMtu);
        }
        let sim = config.sim.clone();
        creation_step(&sim.faults())?;
        let bell = Arc::<Bell>::default();
        let model = NetModel::new(config, &bell);
        let (device, ops) = launch(model, &sim, bell, platform)?;
        Ok((Self(device), ops))
    }

    /// The address that the card has now; its driver may have changed it.
    #[must_use]
    pub fn mac(&self) -> MacAddress {
        self.0.with(|engine| engine.model.mac())
    }

    /// Gives the card another address, also after a reset.
    ///
    /// # Errors
    /// [`CreateError::BadMac`].
    pub fn set_mac(&self, mac: MacAddress) -> Result<(), CreateError> {
        if !mac.is_unicast() {
            return Err(CreateError::BadMac);
        }
        self.0.change(|model| model.provision_mac(mac));
        Ok(())
    }

    /// Connects the card or disconnects it, and tells its driver.
    pub fn set_link(&self, link: Link) {
        self.0.change(|model| model.set_link(link));
    }

    /// Plugs a cable in, in the place of whatever the card was connected to.
    pub fn plug(&self, end: CableEnd) {
        let bell = Arc::clone(&self.0.bell);
        self.0.change(|model| {
            model.plug(end, &bell);
            Change::Nothing
        });
    }
}

impl core::fmt::Debug for SimNet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SimNet")
            .field("mac", &self.mac())
            .finish_non_exhaustive()
    }
}
