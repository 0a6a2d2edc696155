//! What a simulated network card offers, its queues, and its configuration space (VIRTIO 1.2, 5.1.2
//! to 5.1.4).

use vdpa::Features;
use vdpa::MacAddress;
use vdpa::config::net;
use virtio::net::{F, S};

use crate::model::CONFIG_MAX;

use super::Link;

/// The size of the space, up to `mtu`.
pub(super) const CONFIG_SIZE: u32 = 12;

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Receive {
        pair: u16,
    },
    Transmit {
        pair: u16,
    },
    Control,
    /// Beyond what was negotiated.
    Nothing,
}

/// What the configuration space tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) mac: MacAddress,
    pub(super) link: Link,
    pub(super) pairs: u16,
    pub(super) mtu: u16,
}

/// The features of a network card.
pub(super) fn features() -> Features {
    let offload = F::CSUM | F::GUEST_CSUM | F::MRG_RXBUF;
    let identity = F::MAC | F::STATUS | F::MTU | F::MQ;
    let control = F::CTRL_VQ | F::CTRL_MAC_ADDR | F::CTRL_RX;
    (offload | identity | control).into()
}

/// Whether no feature misses one that it needs (VIRTIO 1.2, 5.1.3.1).
pub(super) fn is_consistent(features: Features) -> bool {
    let controlled = Features::from(F::MQ | F::CTRL_MAC_ADDR | F::CTRL_RX);
    features.contains(F::CTRL_VQ) || features.intersection(controlled) == Features::EMPTY
}

/// What a queue is for: the pairs come first, and the control queue behind the last that was
/// negotiated.
pub(super) fn role(queue: u16, pairs: u16, features: Features) -> Role {
    let pairs = if features.contains(F::MQ) { pairs } else { 1 };
    let pair = queue / 2;
    match (pair < pairs, queue % 2) {
        (true, 0) => Role::Receive { pair },
        (true, _) => Role::Transmit { pair },
        (false, 0) if pair == pairs && features.contains(F::CTRL_VQ) => Role::Control,
        _ => Role::Nothing,
    }
}

impl Identity {
    pub(super) fn write_to(self, config: &mut [u8; CONFIG_MAX]) {
        let status = match self.link {
            Link::Up => S::LINK_UP,
            Link::Down => S::empty(),
        };
        net::MAC.put(config, self.mac.0);
        net::STATUS.put(config, status.bits().to_ne());
        net::MAX_VIRTQUEUE_PAIRS.put(config, self.pairs);
        net::MTU.put(config, self.mtu);
    }
}
