//! A network card: what it is made of, and what is changed from outside.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;

use vdpa::Features;
use vdpa::MacAddress;

use crate::bell::Bell;
use crate::model::Change;

use super::cable::{CableEnd, Reception};
use super::config::{Role, role};
use super::control::Control;
use super::counters::{Controlled, Received, Transmitted};
use super::places::Forwarding;
use super::{Link, Overrun, SimNet, SimNetConfig, Wiring};

/// A network card.
pub(super) struct NetModel {
    /// The address after a reset.
    pub(super) provisioned_mac: MacAddress,
    pub(super) pairs: u16,
    pub(super) mtu: u16,
    pub(super) link: Link,
    pub(super) overrun: Overrun,
    pub(super) wiring: Wiring,
    /// What is negotiated at most.
    pub(super) offered: Features,
    /// What was negotiated; nothing while the driver is not ready.
    pub(super) features: Features,
    pub(super) control: Control,
    /// Frames on their way through the card.
    pub(super) forwarding: Forwarding,
    /// The pair whose turn it is.
    pub(super) next: u16,
    pub(super) received: Box<[Received]>,
    pub(super) transmitted: Box<[Transmitted]>,
    pub(super) controlled: Controlled,
}

impl NetModel {
    pub(super) fn new(config: SimNetConfig, bell: &Arc<Bell>) -> Self {
        if let Wiring::Cable(end) = &config.wiring {
            end.plug(bell);
        }
        let pairs = usize::from(config.queue_pairs);
        Self {
            provisioned_mac: config.mac,
            pairs: config.queue_pairs,
            mtu: config.mtu,
            link: config.link,
            overrun: config.overrun,
            wiring: config.wiring,
            offered: config.sim.features.unwrap_or_else(SimNet::features),
            features: Features::EMPTY,
            control: Control::new(config.mac),
            forwarding: Forwarding::new(),
            next: 0,
            received: vec![Received::default(); pairs].into(),
            transmitted: vec![Transmitted::default(); pairs].into(),
            controlled: Controlled::default(),
        }
    }

    pub(super) fn mac(&self) -> MacAddress {
        self.control.filter.mac
    }

    pub(super) fn provision_mac(&mut self, mac: MacAddress) -> Change {
        self.provisioned_mac = mac;
        self.control.filter.mac = mac;
        Change::Configuration
    }

    pub(super) fn set_link(&mut self, link: Link) -> Change {
        if self.link == link {
            return Change::Nothing;
        }
        self.link = link;
        Change::Configuration
    }

    pub(super) fn plug(&mut self, end: CableEnd, bell: &Arc<Bell>) {
        end.plug(bell);
        if self.features != Features::EMPTY {
            end.set_reception(Reception::Open);
        }
        // Frames and their places belong to the cable that they have come through.
        self.forwarding = Forwarding::new();
        self.wiring = Wiring::Cable(end);
    }

    pub(super) fn role(&self, queue: u16, features: Features) -> Role {
        let negotiated = features != Features::EMPTY;
        let features = if negotiated { features } else { self.offered };
        role(queue, self.pairs, features)
    }

    pub(super) fn set_reception(&self, reception: Reception) {
        if let Wiring::Cable(end) = &self.wiring {
            end.set_reception(reception);
        }
    }
}
