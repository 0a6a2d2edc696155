//! The network card as a [model](crate::model): its configuration, its queues and what it counts.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use vdpa::Features;
use vdpa::MacAddress;
use vdpa::ops::VendorCounter;

use crate::bell::Bell;
use crate::model::{Budget, CONFIG_MAX, ChainLimits, Change, Model, Shape, Turn};
use crate::sim_queue::SimQueue;

use super::cable::{CableEnd, Reception};
use super::config::{self, CONFIG_SIZE, Identity, Role, role};
use super::control::Control;
use super::counters::{Controlled, Received, Transmitted};
use super::forward::Forwarding;
use super::receive::MERGE_MAX;
use super::{Link, Overrun, SimNet, SimNetConfig, Wiring};

/// The group of the control queue; that of all others is 0.
const CONTROL_GROUP: u16 = 1;

/// A network card.
pub(super) struct NetModel {
    /// The address after a reset.
    provisioned_mac: MacAddress,
    pairs: u16,
    pub(super) mtu: u16,
    pub(super) link: Link,
    pub(super) overrun: Overrun,
    pub(super) wiring: Wiring,
    /// What is negotiated at most.
    offered: Features,
    /// What was negotiated; nothing while the driver is not ready.
    pub(super) features: Features,
    pub(super) control: Control,
    /// Frames on their way through the card.
    pub(super) forwarding: Forwarding,
    /// The pair whose turn it is.
    pub(super) next: u16,
    pub(super) received: Box<[Received]>,
    pub(super) transmitted: Box<[Transmitted]>,
    controlled: Controlled,
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

    fn role(&self, queue: u16, features: Features) -> Role {
        let negotiated = features != Features::EMPTY;
        let features = if negotiated { features } else { self.offered };
        role(queue, self.pairs, features)
    }

    fn set_reception(&self, reception: Reception) {
        if let Wiring::Cable(end) = &self.wiring {
            end.set_reception(reception);
        }
    }

    /// Carries out what waits in the control queue.
    fn serve_control(&mut self, ports: &mut [Option<SimQueue>], budget: &mut Budget) -> Turn {
        let queues = (0u16..).zip(ports.iter_mut());
        let control =
            queues.filter(|(queue, _)| role(*queue, self.pairs, self.features) == Role::Control);
        for (_, port) in control {
            let Some(port) = port else { continue };
            loop {
                if budget.is_spent() {
                    return Turn::More;
                }
                let Some(chain) = port.take() else {
                    break;
                };
                budget.pay(chain.readable_len());
                self.controlled.requests += 1;
                let (written, result) = self.control.serve(port, &chain, self.features, self.pairs);
                match result {
                    Ok(()) => self.controlled.successes += 1,
                    Err(_) => self.controlled.errors += 1,
                }
                port.complete(chain, written);
            }
        }
        Turn::Idle
    }
}

impl Model for NetModel {
    fn shape(&self) -> Shape {
        Shape {
            device_id: u8::from(virtio::Id::Net).into(),
            name: "sim-net",
            features: config::features(),
            queues: 2 * self.pairs + 1,
            groups: CONTROL_GROUP + 1,
            config_size: CONFIG_SIZE,
        }
    }

    fn accepts(&self, features: Features) -> bool {
        config::is_consistent(features)
    }

    fn group(&self, queue: u16, features: Features) -> u16 {
        match self.role(queue, features) {
            Role::Control => CONTROL_GROUP,
            _ => 0,
        }
    }

    fn limits(&self, queue: u16, size: u16, features: Features) -> ChainLimits {
        let in_flight = match self.role(queue, features) {
            Role::Receive { .. } => MERGE_MAX,
            _ => 1,
        };
        ChainLimits {
            segments: size,
            in_flight,
        }
    }

    fn read_config(&self, config: &mut [u8; CONFIG_MAX]) {
        let identity = Identity {
            mac: self.mac(),
            link: self.link,
            pairs: self.pairs,
            mtu: self.mtu,
        };
        identity.write_to(config);
    }

    /// VIRTIO 1.2, 5.1.4.2: a driver with `VIRTIO_F_VERSION_1` writes nothing here.
    fn write_config(&mut self, _offset: u32, _byte: u8, _features: Features) {}

    fn start(&mut self, features: Features) {
        self.features = features;
        self.set_reception(Reception::Open);
    }

    fn reset(&mut self) {
        self.features = Features::EMPTY;
        self.set_reception(Reception::Closed);
        self.control = Control::new(self.provisioned_mac);
        self.next = 0;
        self.forwarding.lose_arrived();
    }

    fn serve(&mut self, ports: &mut [Option<SimQueue>], budget: &mut Budget) -> Turn {
        match self.serve_control(ports, budget) {
            Turn::Idle => self.serve_data(ports, budget),
            Turn::More => Turn::More,
        }
    }

    /// A queue that is not used with what was negotiated shows what it has counted otherwise.
    fn statistics(&self, queue: u16, features: Features) -> Vec<VendorCounter> {
        let role = match self.role(queue, features) {
            Role::Nothing => self.role(queue, Features::EMPTY),
            role => role,
        };
        match role {
            Role::Receive { pair } => self.received[usize::from(pair)].list(),
            Role::Transmit { pair } => self.transmitted[usize::from(pair)].list(),
            Role::Control => self.controlled.list(),
            Role::Nothing => Vec::new(),
        }
    }
}
