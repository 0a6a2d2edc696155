//! Random operations, some of which the parent fails, against the model of what is allowed.
//!
//! After every step the answer, what the parent was asked for, and where the device is are those of
//! the model.

use proptest::prelude::*;
use virtio::DeviceStatus;

use vdpa::Features;
use vdpa::device::VdpaClaim;
use vdpa::ops::{Abilities, OpError, QueueState};
use vdpa::testing::{FakeParent, Traits, Translation};

use crate::model::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, GROUPS, Model, Motion, OFFERED, Op, SIZE_MAX,
    SPACES, VERSION_1, packed,
};
use crate::world::{NET, World, place_somewhere};

fn op() -> impl Strategy<Value = Op> {
    let queue = || prop_oneof![8 => 0..2u16, 1 => 2..4u16];
    let agreed = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    // Mostly values on the way to a running device, so that the later states are reached.
    let status = prop_oneof![
        1 => Just(ACKNOWLEDGE),
        2 => Just(ACKNOWLEDGE | DRIVER),
        4 => Just(agreed),
        6 => Just(agreed | DRIVER_OK),
        2 => any::<u8>(),
    ];
    let features = prop_oneof![Just(OFFERED), Just(VERSION_1), any::<u128>()];
    let size = prop_oneof![Just(2u16), Just(16), Just(64), any::<u16>()];
    let state = prop_oneof![
        any::<u16>().prop_map(|avail_index| QueueState::Split { avail_index }),
        Just(QueueState::Split { avail_index: 0 }),
        (0..SIZE_MAX + 2, any::<bool>()).prop_map(|(index, wrap)| packed(index, wrap)),
        Just(packed(0, true)),
    ];
    prop_oneof![
        8 => status.prop_map(Op::SetStatus),
        1 => features.prop_map(Op::SetFeatures),
        4 => (queue(), size).prop_map(|(queue, size)| Op::SetSize(queue, size)),
        4 => queue().prop_map(Op::SetAddress),
        3 => (queue(), state).prop_map(|(queue, state)| Op::SetState(queue, state)),
        2 => queue().prop_map(Op::State),
        1 => queue().prop_map(Op::SetCallback),
        4 => queue().prop_map(Op::Start),
        2 => queue().prop_map(Op::Stop),
        1 => (0..=GROUPS, 0..=SPACES).prop_map(|(group, space)| Op::SetGroup(group, space)),
        1 => queue().prop_map(Op::Statistics),
        3 => Just(Op::Suspend),
        3 => Just(Op::Resume),
        1 => Just(Op::Reset),
    ]
}

/// The way to a device that runs with its first queue.
fn bring_up(features: u128) -> Vec<Op> {
    let agreed = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    vec![
        Op::SetStatus(ACKNOWLEDGE | DRIVER),
        Op::SetFeatures(features),
        Op::SetStatus(agreed),
        Op::SetSize(0, SIZE_MAX),
        Op::SetAddress(0),
        Op::Start(0),
        Op::SetStatus(agreed | DRIVER_OK),
    ]
}

/// Nothing, or a part of that way, split or packed.
fn beginning() -> impl Strategy<Value = Vec<Op>> {
    let features = prop_oneof![Just(OFFERED), Just(VERSION_1)];
    (features, 0..=7usize).prop_map(|(features, steps)| {
        let mut ops = bring_up(features);
        // More often than not all of it.
        ops.truncate(if steps < 3 { steps } else { ops.len() });
        ops
    })
}

async fn apply(device: &VdpaClaim, op: &Op) -> Result<Option<QueueState>, OpError> {
    let done = match *op {
        Op::State(queue) => return device.queue_state(queue).await.map(Some),
        Op::Reset => device.reset().await,
        Op::SetStatus(status) => {
            device
                .set_status(DeviceStatus::from_bits_retain(status))
                .await
        }
        Op::SetFeatures(bits) => device.set_driver_features(Features::from_bits(bits)),
        Op::SetSize(queue, size) => device.set_queue_size(queue, size),
        Op::SetAddress(queue) => place_somewhere(device, queue),
        Op::SetState(queue, state) => device.set_queue_state(queue, state),
        Op::SetCallback(queue) => device.set_queue_callback(queue, None),
        Op::Start(queue) => device.start_queue(queue).await,
        Op::Stop(queue) => device.stop_queue(queue).await,
        Op::SetGroup(group, space) => device.set_group_space(group, space).await,
        Op::Statistics(queue) => device.queue_statistics(queue).map(|_| ()),
        Op::Suspend => device.suspend().await,
        Op::Resume => device.resume().await,
    };
    done.map(|()| None)
}

/// A device with two groups of a queue each, and three address spaces.
fn world(abilities: Abilities) -> World {
    let mut w = World::new();
    let traits = Traits {
        abilities,
        translation: Translation::Incremental,
        spaces: SPACES,
        groups: vec![0, 1],
        group_count: GROUPS,
        ..Traits::default()
    };
    let sizes = [SIZE_MAX; 2];
    let features = Features::from_bits(OFFERED);
    w.parent = FakeParent::with_traits(&w.platform, NET, features, &sizes, &[], traits);
    w
}

/// Applies the operations, each with whether the parent fails it, and compares every outcome with
/// the model's.
fn follows_the_rules(
    abilities: Abilities,
    ops: impl IntoIterator<Item = (Op, bool)>,
) -> Result<(), TestCaseError> {
    let w = world(abilities);
    let device = w.platform.block_on(w.hold());
    let mut model = Model::new(abilities);
    w.parent.take_log();
    for (op, fault) in ops {
        let before = model.clone();
        if fault {
            model.fault = true;
            w.parent.fail_after(0, OpError::Timeout);
        }
        let expected = model.apply(&op);
        let result = w.platform.block_on(apply(&device, &op));
        let log = w.parent.take_log();
        prop_assert_eq!(result, expected.result, "{:?} in {:?}", op, before);
        prop_assert_eq!(
            log,
            Vec::from_iter(expected.log),
            "{:?} in {:?}",
            op,
            before
        );
        // A fault that nothing has run into does not wait for the next step.
        (model.fault, _) = (false, w.parent.take_fault());

        prop_assert_eq!(
            w.parent.status().bits(),
            model.status,
            "{:?} in {:?}",
            op,
            before
        );
        prop_assert_eq!(w.parent.accepted().bits(), model.features);
        for (index, queue) in (0..).zip(&model.queues) {
            prop_assert_eq!(
                w.parent.is_ready(index),
                queue.ready,
                "{:?} in {:?}",
                op,
                before
            );
        }
        for (group, space) in (0..).zip(model.spaces) {
            prop_assert_eq!(
                w.parent.group_space(group),
                space,
                "{:?} in {:?}",
                op,
                before
            );
        }
        let suspended = model.motion == Motion::Suspended;
        prop_assert_eq!(
            device.is_suspended(),
            Ok(suspended),
            "{:?} in {:?}",
            op,
            before
        );
    }
    Ok(())
}

/// Found by the property test: the state of a queue that is in use can be set in suspension, and is
/// what a stop keeps.
#[test]
fn a_state_set_in_suspension_outlives_the_stop_of_its_queue() {
    let abilities = Abilities::SUSPEND | Abilities::QUEUE_STATE;
    for (features, state) in [
        (OFFERED, packed(0, false)),
        (OFFERED, packed(SIZE_MAX - 1, true)),
        (VERSION_1, QueueState::Split { avail_index: 7 }),
    ] {
        let mut ops = bring_up(features);
        ops.extend([
            Op::Suspend,
            Op::State(0),
            Op::SetState(0, state),
            Op::State(0),
            Op::SetAddress(0),
            Op::State(0),
            Op::Stop(0),
            Op::State(0),
        ]);
        follows_the_rules(abilities, ops.into_iter().map(|op| (op, false))).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_device_follows_the_rules_through_any_sequence(
        abilities in (0..16u32).prop_map(Abilities::from_bits_truncate),
        beginning in beginning(),
        steps in prop::collection::vec((op(), prop::bool::weighted(0.05)), 1..80),
    ) {
        let beginning = beginning.into_iter().map(|op| (op, false));
        follows_the_rules(abilities, beginning.chain(steps))?;
    }
}
