//! A simulated network card, and frames for it.

use vdpa::MacAddress;
use vdpa::VdpaOps;
use vdpa_sim::{SimNet, SimNetConfig};
use virtio::net::F;

use crate::world::{Answer, Rig, Variant, World};

pub const HEADER: usize = 12;
pub const OWN: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
pub const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
pub const BROADCAST: [u8; 6] = [0xff; 6];
pub const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// A buffer for a whole frame.
pub const BUFFER: usize = 1600;

// The lines of a rig with one pair and a control queue.
pub const RX: usize = 0;
pub const TX: usize = 1;
pub const CONTROL: usize = 2;

pub fn config(variant: Variant) -> SimNetConfig {
    SimNetConfig {
        mac: MacAddress(OWN),
        sim: variant.sim(),
        ..SimNetConfig::default()
    }
}

pub fn sim_net(world: &World, config: SimNetConfig) -> (SimNet, Box<dyn VdpaOps>) {
    SimNet::new(config, &world.kernel()).unwrap()
}

/// What a driver accepts that wants everything but the offloads and several queues.
pub fn all() -> F {
    F::MAC | F::STATUS | F::MTU | F::CTRL_VQ | F::CTRL_MAC_ADDR | F::CTRL_RX
}

/// A running card with one pair and a control queue, which is in address space 0 like the others.
pub fn drive(world: &World, config: SimNetConfig, variant: Variant, features: F) -> (SimNet, Rig) {
    let (handle, ops) = sim_net(world, config);
    let rig = world.drive(ops, variant, features, &[0, 1, 2]);
    (handle, rig)
}

/// A frame without its header: addresses, a type, and a number.
pub fn frame(to: [u8; 6], len: usize, number: u8) -> Vec<u8> {
    let mut frame = vec![number; len];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&OWN);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame
}

impl Rig {
    /// Offers so many buffers for whole frames.
    pub fn offer_buffers(&mut self, line: usize, count: usize) {
        for _ in 0..count {
            self.offer(line, &[], &[BUFFER]);
        }
        self.kick(line);
    }

    pub fn send(&mut self, line: usize, frame: &[u8]) {
        self.offer(line, &[&[0; HEADER], frame], &[]);
        self.kick(line);
    }

    /// The next frame that was received, without its header.
    pub fn receive(&mut self, line: usize) -> Option<Vec<u8>> {
        let Answer { bytes, written } = self.take(line)?;
        assert!(written >= HEADER, "{written}");
        Some(bytes[HEADER..written].to_vec())
    }

    /// A command, and whether the card has taken it.
    pub fn command(&mut self, world: &World, class: u8, command: u8, data: &[u8]) -> bool {
        let header = [class, command];
        let readable: &[&[u8]] = if data.is_empty() {
            &[&header]
        } else {
            &[&header, data]
        };
        let answer = self.exchange(world, CONTROL, readable, &[1]);
        assert_eq!(answer.written, 1);
        assert!(answer.bytes[0] <= 1);
        answer.bytes[0] == 0
    }
}
