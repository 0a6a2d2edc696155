//! The network card as a [model](crate::model): its shape, its control queue and what it counts.

use alloc::vec::Vec;

use vdpa::Features;
use vdpa::ops::VendorCounter;

use crate::model::{Budget, CONFIG_MAX, ChainLimits, Model, Shape, Turn};
use crate::sim_queue::SimQueue;

use super::cable::Reception;
use super::card::NetModel;
use super::config::{self, CONFIG_SIZE, Identity, Role, role};
use super::control::Control;
use super::receive::MERGE_MAX;

/// The group of the control queue; that of all others is 0.
const CONTROL_GROUP: u16 = 1;

impl NetModel {
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
