//! The requests about one queue, and its events.

use std::sync::Arc;

use vdpa::Features;
use vdpa::ops::{Abilities, NotificationArea, OpError, QueueAddress, QueueState};
use vdpa::platform::PhysAddr;
use vdpa::testing::{Traits, Translation};
use vhost_vdpa::{Reply, Request, VhostError};
use virtq::{DmaAddr, Event};

use crate::world::{World, agree, reset, running, set_up, somewhere, start, translating};

#[test]
fn a_queue_that_does_not_exist_is_only_a_number() {
    let world = World::new();
    let handle = world.owner();
    world.run(agree(&handle, Features::EMPTY)).unwrap();
    for queue in [3, 4, u16::MAX] {
        let state = QueueState::Split { avail_index: 0 };
        let address = somewhere();
        for request in [
            Request::GetVringSize { queue },
            Request::SetVringNum { queue, size: 16 },
            Request::SetVringAddr { queue, address },
            Request::SetVringBase { queue, state },
            Request::GetVringBase { queue },
            Request::EnableVring { queue },
            Request::DisableVring { queue },
            Request::SetVringKick { queue, event: None },
            Request::SetVringCall { queue, event: None },
            Request::SetVringErr { queue, event: None },
        ] {
            let shown = format!("{request:?}");
            let answer = world.run(handle.request(request));
            assert_eq!(answer, Err(VhostError::NoSuchQueue), "{shown}");
        }
        assert_eq!(handle.doorbell(queue).unwrap_err(), VhostError::NoSuchQueue);
        assert_eq!(
            handle.notification_area(queue),
            Err(VhostError::NoSuchQueue)
        );
    }
}

#[test]
fn a_queue_has_the_size_that_it_is_given() {
    let world = World::new();
    let handle = world.owner();
    let queue = 2;
    let size = || world.run(handle.request(Request::GetVringSize { queue }));
    assert_eq!(size(), Ok(Reply::VringSize(32)));
    assert_eq!(handle.set_vring_num(queue, 16), Err(VhostError::WrongState));
    world.run(agree(&handle, Features::EMPTY)).unwrap();
    for bad in [0, 1, 24, 64, u16::MAX] {
        assert_eq!(handle.set_vring_num(queue, bad), Err(VhostError::Invalid));
    }
    assert_eq!(
        world.run(handle.request(Request::SetVringNum { queue, size: 16 })),
        Ok(Reply::Done)
    );
    assert_eq!(size(), Ok(Reply::VringSize(16)));
}

#[test]
fn the_parts_of_a_queue_are_aligned() {
    let world = World::new();
    let handle = world.owner();
    world.run(agree(&handle, Features::EMPTY)).unwrap();
    let good = somewhere();
    for bad in [
        QueueAddress {
            descriptor: DmaAddr(0x1008),
            ..good
        },
        QueueAddress {
            driver: DmaAddr(0x2001),
            ..good
        },
        QueueAddress {
            device: DmaAddr(0x3002),
            ..good
        },
    ] {
        assert_eq!(handle.set_vring_addr(0, bad), Err(VhostError::Invalid));
    }
    let address = QueueAddress {
        driver: DmaAddr(0x2002),
        ..good
    };
    let request = Request::SetVringAddr { queue: 0, address };
    assert_eq!(world.run(handle.request(request)), Ok(Reply::Done));
}

#[test]
fn a_queue_is_enabled_once_it_is_complete() {
    let world = World::new();
    let handle = world.owner();
    world.run(agree(&handle, Features::EMPTY)).unwrap();
    let enable = || world.run(handle.request(Request::EnableVring { queue: 0 }));
    assert_eq!(enable(), Err(VhostError::WrongState));
    handle.set_vring_num(0, 16).unwrap();
    assert_eq!(enable(), Err(VhostError::WrongState));
    handle.set_vring_addr(0, somewhere()).unwrap();
    assert_eq!(enable(), Ok(Reply::Done));
    assert!(world.parent.is_ready(0));
    assert_eq!(enable(), Ok(Reply::Done), "it stays enabled");
    assert_eq!(handle.set_vring_num(0, 32), Err(VhostError::WrongState));
    assert_eq!(
        world.run(handle.request(Request::DisableVring { queue: 0 })),
        Ok(Reply::Done)
    );
    assert!(!world.parent.is_ready(0));
    assert_eq!(world.run(handle.disable_vring(0)), Ok(()));
}

#[test]
fn what_the_device_answers_reaches_the_client() {
    let world = World::new();
    let handle = world.owner();
    world.run(agree(&handle, Features::EMPTY)).unwrap();
    for (error, answer) in [
        (OpError::OutOfResources, VhostError::OutOfResources),
        (OpError::VectorRefused, VhostError::OutOfResources),
        (OpError::Invalid, VhostError::Invalid),
        (OpError::Unsupported, VhostError::Unsupported),
        (OpError::Broken, VhostError::Broken),
        (OpError::Gone, VhostError::HungUp),
    ] {
        world.parent.fail_after(0, error);
        assert_eq!(handle.set_vring_num(0, 16), Err(answer));
    }
}

#[test]
fn queues_are_enabled_late_where_the_device_can_do_that() {
    for (abilities, answer) in [
        (Abilities::all(), Ok(())),
        (Abilities::empty(), Err(VhostError::WrongState)),
    ] {
        let world = World::with(Traits {
            abilities,
            ..translating(Translation::Incremental)
        });
        let handle = world.owner();
        world.run(start(&handle)).unwrap();
        assert_eq!(world.run(set_up(&handle, 1)), answer);
    }
}

#[test]
fn addresses_change_while_the_device_is_suspended() {
    let world = World::new();
    let handle = world.owner();
    world.run(start(&handle)).unwrap();
    let state = QueueState::Split { avail_index: 3 };
    assert_eq!(
        handle.set_vring_addr(0, somewhere()),
        Err(VhostError::WrongState)
    );
    assert_eq!(handle.set_vring_base(0, state), Err(VhostError::WrongState));
    world.run(handle.suspend()).unwrap();
    assert_eq!(handle.set_vring_addr(0, somewhere()), Ok(()));
    assert_eq!(handle.set_vring_base(0, state), Ok(()));
    assert_eq!(world.run(handle.vring_base(0)), Ok(state));
}

#[test]
fn a_state_belongs_to_its_ring_format() {
    let split = QueueState::Split {
        avail_index: 0xffff,
    };
    let packed = |avail_index| QueueState::Packed {
        avail_index,
        avail_wrap: false,
        used_index: 3,
        used_wrap: true,
    };
    let world = World::new();
    let handle = world.owner();
    world.run(agree(&handle, Features::EMPTY)).unwrap();
    handle.set_vring_num(0, 16).unwrap();
    assert_eq!(
        handle.set_vring_base(0, packed(5)),
        Err(VhostError::Invalid)
    );
    assert_eq!(handle.set_vring_base(0, split), Ok(()));

    world.run(handle.set_status(reset())).unwrap();
    world.run(agree(&handle, virtio::F::RING_PACKED)).unwrap();
    handle.set_vring_num(0, 16).unwrap();
    assert_eq!(handle.set_vring_base(0, split), Err(VhostError::Invalid));
    assert_eq!(
        handle.set_vring_base(0, packed(16)),
        Err(VhostError::Invalid)
    );
    let request = Request::SetVringBase {
        queue: 0,
        state: packed(5),
    };
    assert_eq!(world.run(handle.request(request)), Ok(Reply::Done));
}

#[test]
fn where_a_queue_stands_is_told_when_it_stands() {
    let world = World::new();
    let handle = world.owner();
    world.run(agree(&handle, Features::EMPTY)).unwrap();
    let state = QueueState::Split {
        avail_index: 0x1234,
    };
    handle.set_vring_base(0, state).unwrap();
    world.run(set_up(&handle, 0)).unwrap();
    world.run(handle.set_status(running())).unwrap();
    let base = || world.run(handle.request(Request::GetVringBase { queue: 0 }));
    assert_eq!(base(), Err(VhostError::WrongState));
    world.run(handle.suspend()).unwrap();
    assert_eq!(base(), Ok(Reply::VringBase(state)));
}

#[test]
fn an_interrupt_raises_the_clients_event_also_after_a_reset() {
    let world = World::new();
    let handle = world.owner();
    let call = Arc::<Event>::default();
    // Before the features have been agreed on, as clients do.
    let request = Request::SetVringCall {
        queue: 0,
        event: Some(Arc::clone(&call)),
    };
    assert_eq!(world.run(handle.request(request)), Ok(Reply::Done));
    for raised in [1, 2] {
        world.run(start(&handle)).unwrap();
        world.parent.interrupt(0);
        assert_eq!(call.count(), raised);
        world.run(handle.set_status(reset())).unwrap();
    }
    world.parent.interrupt(0);
    assert_eq!(call.count(), 2);
}

#[test]
fn the_event_of_an_enabled_queue_stays() {
    let world = World::new();
    let handle = world.owner();
    let call = Arc::<Event>::default();
    world.run(agree(&handle, Features::EMPTY)).unwrap();
    handle.set_vring_call(0, Some(Arc::clone(&call))).unwrap();
    world.run(set_up(&handle, 0)).unwrap();
    world.run(handle.set_status(running())).unwrap();
    assert_eq!(handle.set_vring_call(0, None), Err(VhostError::WrongState));
    world.parent.interrupt(0);
    assert_eq!(call.count(), 1);
}

#[test]
fn a_kick_event_is_passed_on_while_the_queue_runs() {
    let world = World::new();
    let handle = world.owner();
    let kick = Arc::<Event>::default();
    let request = Request::SetVringKick {
        queue: 0,
        event: Some(Arc::clone(&kick)),
    };
    assert_eq!(world.run(handle.request(request)), Ok(Reply::Done));
    let device = world.parent.kick(0);
    let rings = || {
        world.platform.run_until_stalled();
        device.count()
    };
    kick.raise();
    assert_eq!(rings(), 0, "not before DRIVER_OK");
    world.run(start(&handle)).unwrap();
    assert_eq!(rings(), 1, "what came early counts");
    kick.raise();
    assert_eq!(rings(), 2);

    let other = Arc::<Event>::default();
    world
        .run(handle.set_vring_kick(0, Some(Arc::clone(&other))))
        .unwrap();
    kick.raise();
    assert_eq!(rings(), 2, "an event that has been replaced is no kick");
    other.raise();
    assert_eq!(rings(), 3);
    world.run(handle.set_status(reset())).unwrap();
    other.raise();
    assert_eq!(rings(), 3);
}

#[test]
fn an_event_cannot_carry_notification_data() {
    let world = World::new();
    let handle = world.owner();
    let event = Some(Arc::<Event>::default());
    world.run(handle.set_vring_kick(1, event.clone())).unwrap();
    let features = Features::from(virtio::F::NOTIFICATION_DATA);
    assert_eq!(handle.set_features(features), Err(VhostError::Unsupported));
    world.run(handle.set_vring_kick(1, None)).unwrap();
    assert_eq!(handle.set_features(features), Ok(()));
    let late = world.run(handle.set_vring_kick(0, event));
    assert_eq!(late, Err(VhostError::Unsupported));
}

#[test]
fn the_error_event_is_raised_when_the_device_breaks() {
    let world = World::new();
    let handle = world.owner();
    let err = Arc::<Event>::default();
    let request = Request::SetVringErr {
        queue: 1,
        event: Some(Arc::clone(&err)),
    };
    assert_eq!(world.run(handle.request(request)), Ok(Reply::Done));
    world.run(agree(&handle, Features::EMPTY)).unwrap();
    assert_eq!(err.count(), 0);
    world.parent.fail_after(0, OpError::Broken);
    assert_eq!(
        world.run(handle.set_status(running())),
        Err(VhostError::Broken)
    );
    assert_eq!(err.count(), 1);
}

#[test]
fn a_doorbell_leads_to_the_device_until_the_next_reset() {
    let world = World::new();
    let handle = world.owner();
    assert_eq!(handle.doorbell(0).unwrap_err(), VhostError::WrongState);
    world.run(start(&handle)).unwrap();
    let doorbell = handle.doorbell(0).unwrap();
    doorbell.ring(0);
    handle.doorbell(0).unwrap().ring(0);
    let device = world.parent.kick(0);
    assert_eq!(device.count(), 2);
    world.run(handle.set_status(reset())).unwrap();
    doorbell.ring(0);
    assert_eq!(device.count(), 2);
    world.run(start(&handle)).unwrap();
    let second = handle.doorbell(0).unwrap();
    second.ring(0);
    assert_eq!(device.count(), 3);
    world.run(handle.close()).unwrap();
    second.ring(0);
    assert_eq!(device.count(), 3);
}

#[test]
fn a_doorbell_is_given_away_where_it_stands_alone_on_a_page() {
    for (base, len, alone) in [
        (0xfe00_0000, 4096, true),
        (0xfe00_0000, 4, false),
        (0xfe00_0100, 4096, false),
    ] {
        let world = World::with(Traits {
            doorbells: Some(NotificationArea {
                base: PhysAddr(base),
                len,
            }),
            ..translating(Translation::Incremental)
        });
        let handle = world.owner();
        let area = handle.notification_area(0).unwrap();
        assert_eq!(area.is_some(), alone, "{len} bytes at {base:#x}");
    }
    let world = World::new();
    assert_eq!(world.owner().notification_area(0), Ok(None));
}
