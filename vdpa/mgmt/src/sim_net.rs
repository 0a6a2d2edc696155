//! `vdpasim_net`: makes simulated network cards, as Linux's module of that name does.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use spin::Mutex;
use vdpa::ops::OpError;
use vdpa::platform::BoxFuture;
use vdpa::{Features, MacAddress, Node, Platform};
use vdpa_sim::{Cable, SimConfig, SimNet, SimNetConfig, Wiring};

use super::attributes::{AttributeSet, Attributes};
use super::handle::Handle;
use super::manager::{CreateError, ManagementDevice, Product, Settings};
use super::simulators::{DEVICES_MAX, Place};

/// The virtio device type of network cards (VIRTIO 1.2, 5).
const NET: u32 = 1;
const NAME: &str = "vdpasim_net";

/// The management device of simulated network cards.
///
/// A card sends to itself, or, with [`Attributes::peer`], to another card of this management
/// device.
pub struct SimNets {
    handle: Handle,
    place: Place,
    /// Counts the cards, for addresses of their own.
    made: AtomicU32,
    cards: Mutex<Vec<Card>>,
}

struct Card {
    name: String,
    wires: Weak<Wires>,
}

/// A card that can be changed later; it lives as long as its device.
struct Wires(SimNet);

impl SimNets {
    /// Cards that hang below `root`.
    #[must_use]
    pub fn new(root: &Arc<Node>, platform: &Arc<dyn Platform>) -> Arc<Self> {
        Arc::new(Self {
            handle: Handle::named(NAME),
            place: Place::new(NAME, root, platform),
            made: AtomicU32::new(0),
            cards: Mutex::default(),
        })
    }

    fn make(&self, name: &str, attributes: &Attributes) -> Result<Product, CreateError> {
        let peer = match &attributes.peer {
            Some(peer) => Some(self.card(peer).ok_or(CreateError::NoPeer)?),
            None => None,
        };
        let usual = SimNetConfig::default();
        let queue_pairs = attributes.max_queue_pairs.unwrap_or(usual.queue_pairs);
        self.count()?;
        self.place.check_memory(queue_pairs.saturating_mul(2), 0)?;
        let (wiring, far_end) = match peer {
            Some(peer) => {
                let (near, far) = Cable::new();
                (Wiring::Cable(near), Some((peer, far)))
            }
            None => (Wiring::Loopback, None),
        };
        let config = SimNetConfig {
            mac: attributes.mac.unwrap_or_else(|| self.next_mac()),
            mtu: attributes.mtu.unwrap_or(usual.mtu),
            queue_pairs,
            wiring,
            sim: SimConfig {
                features: attributes.device_features,
                ..usual.sim
            },
            ..usual
        };
        let platform = self.place.platform();
        let (card, ops) = SimNet::new(config, platform)
            .map_err(|error| CreateError::of_simulator(error, platform.memory_left()))?;
        let wires = Arc::new(Wires(card));
        self.cards.lock().push(Card {
            name: name.to_owned(),
            wires: Arc::downgrade(&wires),
        });
        if let Some((peer, far)) = far_end {
            peer.0.plug(far);
        }
        Ok(Product {
            ops,
            config: self.place.config(),
            settings: Some(wires),
        })
    }

    fn card(&self, name: &str) -> Option<Arc<Wires>> {
        let cards = self.cards.lock();
        let named = cards.iter().filter(|card| card.name == name);
        named.filter_map(|card| card.wires.upgrade()).next()
    }

    /// Forgets cards that have gone, and checks whether there is room for another one.
    fn count(&self) -> Result<(), CreateError> {
        let mut cards = self.cards.lock();
        cards.retain(|card| card.wires.strong_count() > 0);
        if cards.len() < DEVICES_MAX {
            Ok(())
        } else {
            Err(CreateError::TooMany)
        }
    }

    /// A locally administered address that no card has had before it.
    fn next_mac(&self) -> MacAddress {
        let number = self.made.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let [a, b, c, d] = number.to_be_bytes();
        MacAddress([0x02, 0, a, b, c, d])
    }
}

impl ManagementDevice for SimNets {
    fn handle(&self) -> &Handle {
        &self.handle
    }

    fn classes(&self) -> &[u32] {
        &[NET]
    }

    fn max_queues(&self) -> u32 {
        2 * u32::from(SimNet::QUEUE_PAIRS_MAX) + 1
    }

    fn features(&self) -> Features {
        SimNet::features()
    }

    fn attributes(&self) -> AttributeSet {
        AttributeSet::NET | AttributeSet::DEVICE_FEATURES
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        attributes: &'a Attributes,
    ) -> BoxFuture<'a, Result<Product, CreateError>> {
        Box::pin(async move { self.make(name, attributes) })
    }
}

impl Settings for Wires {
    fn set_mac(&self, mac: MacAddress) -> Result<(), OpError> {
        self.0.set_mac(mac).map_err(|_| OpError::Invalid)
    }
}

impl fmt::Debug for SimNets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNets")
            .field("made", &self.made)
            .finish_non_exhaustive()
    }
}
