//! Random operations against a model of the rules of VIRTIO 1.2, sections 2.1, 2.2 and 3.1.1.
//!
//! The model knows what must be refused. Whatever it allows must succeed, and the device must be where
//! the model is after every step.

use proptest::prelude::*;
use virtio::DeviceStatus;

use vdpa::Features;
use vdpa::device::VdpaDevice;
use vdpa::ops::OpError;

use crate::world::{World, somewhere};

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const FAILED: u8 = 128;

/// VERSION_1, MAC and STATUS: what the device offers.
const OFFERED: u64 = 1 << 32 | 1 << 5 | 1 << 16;

#[derive(Clone, Debug)]
enum Op {
    SetStatus(u8),
    SetFeatures(u64),
    SetSize(u16, u16),
    SetAddress(u16),
    SetCallback(u16),
    Start(u16),
    Reset,
}

fn op() -> impl Strategy<Value = Op> {
    let queue = || 0..4u16;
    // Mostly values on the way to a running device, so that the later states are reached.
    let status = prop_oneof![
        Just(ACKNOWLEDGE),
        Just(ACKNOWLEDGE | DRIVER),
        Just(ACKNOWLEDGE | DRIVER | FEATURES_OK),
        Just(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK),
        any::<u8>(),
    ];
    let features = prop_oneof![Just(OFFERED), Just(1 << 32), any::<u64>()];
    let size = prop_oneof![Just(2u16), Just(16), Just(64), any::<u16>()];
    prop_oneof![
        6 => status.prop_map(Op::SetStatus),
        1 => features.prop_map(Op::SetFeatures),
        3 => (queue(), size).prop_map(|(queue, size)| Op::SetSize(queue, size)),
        3 => queue().prop_map(Op::SetAddress),
        1 => queue().prop_map(Op::SetCallback),
        3 => queue().prop_map(Op::Start),
        1 => Just(Op::Reset),
    ]
}

#[derive(Clone, Debug, Default)]
struct Model {
    status: u8,
    features: u64,
    queues: [Queue; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    size: u16,
    addressed: bool,
    ready: bool,
}

impl Model {
    /// What the rules say about the operation; if they allow it, it happens.
    fn apply(&mut self, op: &Op) -> Result<(), OpError> {
        match *op {
            Op::Reset => *self = Self::default(),
            Op::SetStatus(status) => {
                let settable = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED;
                if status == 0 || status & !settable != 0 || self.status & !status != 0 {
                    return Err(OpError::Invalid);
                }
                if status & DRIVER_OK != 0 && self.status & FEATURES_OK == 0 {
                    return Err(OpError::WrongState);
                }
                self.status = status;
            }
            Op::SetFeatures(features) => {
                if self.status & FEATURES_OK != 0 {
                    return Err(OpError::WrongState);
                }
                if features & !OFFERED != 0 {
                    return Err(OpError::Invalid);
                }
                self.features = features;
            }
            Op::SetSize(queue, size) => {
                let queue = self.set_up(queue)?;
                if !(2..=64).contains(&size) || size.count_ones() != 1 {
                    return Err(OpError::Invalid);
                }
                queue.size = size;
            }
            Op::SetAddress(queue) => self.set_up(queue)?.addressed = true,
            Op::SetCallback(queue) => {
                self.set_up(queue)?;
            }
            Op::Start(queue) => {
                let queue = self.set_up(queue)?;
                if queue.size == 0 || !queue.addressed {
                    return Err(OpError::WrongState);
                }
                queue.ready = true;
            }
        }
        Ok(())
    }

    /// A queue is set up between `FEATURES_OK` and `DRIVER_OK`, as long as it is not ready.
    fn set_up(&mut self, queue: u16) -> Result<&mut Queue, OpError> {
        let queue = self
            .queues
            .get_mut(usize::from(queue))
            .ok_or(OpError::OutOfRange)?;
        let time = self.status & FEATURES_OK != 0 && self.status & (DRIVER_OK | FAILED) == 0;
        if time && !queue.ready {
            Ok(queue)
        } else {
            Err(OpError::WrongState)
        }
    }
}

async fn apply(device: &VdpaDevice, op: &Op) -> Result<(), OpError> {
    match *op {
        Op::Reset => device.reset().await,
        Op::SetStatus(status) => {
            device
                .set_status(DeviceStatus::from_bits_retain(status))
                .await
        }
        Op::SetFeatures(bits) => device.set_driver_features(Features::from_bits(bits)),
        Op::SetSize(queue, size) => device.set_queue_size(queue, size),
        Op::SetAddress(queue) => device.set_queue_address(queue, somewhere()),
        Op::SetCallback(queue) => device.set_queue_callback(queue, None),
        Op::Start(queue) => device.start_queue(queue).await,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_device_follows_the_specification_through_any_sequence(
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let w = World::new();
        let device = w.platform.block_on(w.register());
        let mut model = Model::default();
        for op in ops {
            let before = model.clone();
            let expected = model.apply(&op);
            let answer = w.platform.block_on(apply(&device, &op));
            prop_assert_eq!(answer, expected, "{:?} in {:?}", op, before);
            prop_assert_eq!(w.parent.status().bits(), model.status, "{:?} in {:?}", op, before);
            prop_assert_eq!(w.parent.accepted().bits(), model.features);
            for (index, queue) in (0..).zip(&model.queues) {
                prop_assert_eq!(w.parent.is_ready(index), queue.ready, "{:?} in {:?}", op, before);
            }
        }
    }
}
