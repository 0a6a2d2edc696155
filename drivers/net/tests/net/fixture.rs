//! An interface that is up, and the device's view of its queues.

use std::sync::Arc;

use embassy_net_driver::{Driver, LinkState, RxToken, TxToken};
use vdpa::testing::{FakeParent, FakePlatform};
use virtio::net::F;
use virtio_bus::Completion;
use virtio_bus::Registry;
use virtio_net::{NetDevice, NetDriver, NetOptions};

use crate::common::{Alarm, Hardware, World, with_alarm};

pub(crate) const RX: u16 = 0;
pub(crate) const TX: u16 = 1;
pub(crate) const HEADER_LEN: usize = 12;
/// The header of a frame that fits one buffer and needs nothing: `num_buffers` is 1.
pub(crate) const PLAIN: [u8; HEADER_LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/// How the test's device differs from a plain one.
pub(crate) struct Setup {
    pub(crate) features: F,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u16,
    pub(crate) pairs: u16,
    pub(crate) queue_size: u16,
    pub(crate) completion: Completion,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            features: F::MAC | F::STATUS | F::MTU,
            mac: MAC,
            mtu: 1500,
            pairs: 1,
            queue_size: 16,
            completion: Completion::Interrupt,
        }
    }
}

impl Setup {
    pub(crate) fn with(features: F) -> Self {
        let plain = Self::default();
        Self {
            features: plain.features | features,
            ..plain
        }
    }

    /// `virtio_net_config`: mac, status, pairs, mtu.
    pub(crate) fn config(&self) -> Vec<u8> {
        let mut config = self.mac.to_vec();
        config.extend([1, 0]);
        config.extend(self.pairs.to_le_bytes());
        config.extend(self.mtu.to_le_bytes());
        config
    }

    pub(crate) fn world(&self, registry: &Arc<Registry<NetDevice>>) -> World {
        self.world_on(FakePlatform::new(), registry, |_| {})
    }

    pub(crate) fn world_on(
        &self,
        platform: Arc<FakePlatform>,
        registry: &Arc<Registry<NetDevice>>,
        set_up: impl FnOnce(&FakeParent),
    ) -> World {
        let hardware = Hardware {
            device_type: virtio::Id::Net,
            features: self.features.into(),
            queue_sizes: &[self.queue_size, self.queue_size],
            config: &self.config(),
        };
        World::new(&hardware, Arc::new(self.driver(registry)), platform, set_up)
    }

    pub(crate) fn driver(&self, registry: &Arc<Registry<NetDevice>>) -> NetDriver {
        let options = NetOptions {
            completion: self.completion,
            ..NetOptions::default()
        };
        NetDriver::new(Arc::clone(registry), options)
    }

    pub(crate) fn start(&self) -> Net {
        let registry = Registry::new();
        let world = self.world(&registry);
        let interface = registry
            .take()
            .expect("the driver has published an interface");
        Net {
            world,
            interface,
            registry,
            alarm: Arc::default(),
        }
    }
}

/// A running interface.
pub(crate) struct Net {
    pub(crate) interface: NetDevice,
    pub(crate) registry: Arc<Registry<NetDevice>>,
    pub(crate) world: World,
    /// Woken by the interface.
    pub(crate) alarm: Arc<Alarm>,
}

impl Net {
    /// Sends a frame to the interface in one buffer, behind `header`.
    pub(crate) fn deliver(&self, header: [u8; HEADER_LEN], frame: &[u8]) {
        let request = self
            .world
            .parent
            .pop(RX)
            .expect("the driver has lent a buffer");
        let bytes = [&header[..], frame].concat();
        self.world.parent.complete(RX, &request, &bytes);
    }

    /// What the interface receives next, if anything.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        with_alarm(&self.alarm, |cx| {
            Driver::receive(&mut self.interface, cx)
                .map(|(rx, _tx)| RxToken::consume(rx, |frame| frame.to_vec()))
        })
    }

    /// Sends a frame from the interface; false if there is no room.
    pub(crate) fn send(&mut self, frame: &[u8]) -> bool {
        with_alarm(&self.alarm, |cx| {
            match Driver::transmit(&mut self.interface, cx) {
                Some(token) => {
                    TxToken::consume(token, frame.len(), |buffer| buffer.copy_from_slice(frame));
                    true
                }
                None => false,
            }
        })
    }

    /// Ends a batch, as the stack does with each poll, and says whether the link is up.
    pub(crate) fn link_is_up(&mut self) -> bool {
        with_alarm(&self.alarm, |cx| {
            Driver::link_state(&mut self.interface, cx)
        }) == LinkState::Up
    }

    /// The next frame that the device finds, with its header, and gives back.
    pub(crate) fn sent(&self) -> Option<([u8; HEADER_LEN], Vec<u8>)> {
        let request = self.world.parent.pop(TX)?;
        let bytes = self.world.parent.read(TX, &request);
        self.world.parent.complete(TX, &request, &[]);
        let (header, frame) = bytes.split_first_chunk().expect("a frame has a header");
        Some((*header, frame.to_vec()))
    }

    /// Whether the interface's report has this line.
    pub(crate) fn reports(&self, fact: &str) -> bool {
        self.world.facts("net0").iter().any(|line| line == fact)
    }
}

/// A frame of `len` bytes whose content depends on `seed`, of a protocol that has no checksums.
pub(crate) fn frame(seed: u8, len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ seed)
        .collect();
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}
