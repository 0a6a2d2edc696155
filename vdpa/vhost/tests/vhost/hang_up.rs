//! What a client notices when the device is taken away.

use std::sync::Arc;

use vdpa::device::{Removal, Removed};
use vdpa::ops::DirtyLog;
use vdpa::power;
use vdpa::testing::Resets;
use vhost_vdpa::{OpenOptions, Request, VhostError, VhostHandle};
use virtq::{DmaAddr, Event};

use crate::world::{FIRST, LAST, NAME, World, invalidate, start, update};

/// Asks for everything that a client can ask for.
fn expect_hung_up(world: &World, handle: &VhostHandle) {
    let queue = 0;
    for request in [
        Request::SetOwner,
        Request::GetFeatures,
        Request::SetFeatures(vdpa::Features::EMPTY),
        Request::GetBackendFeatures,
        Request::GetStatus,
        Request::SetStatus(virtio::DeviceStatus::ACKNOWLEDGE),
        Request::SetStatus(virtio::DeviceStatus::empty()),
        Request::GetDeviceId,
        Request::GetConfig { offset: 0, len: 1 },
        Request::SetConfig {
            offset: 0,
            bytes: vec![1],
        },
        Request::SetConfigCall(None),
        Request::GetVringBase { queue },
        Request::SetVringNum { queue, size: 16 },
        Request::EnableVring { queue },
        Request::DisableVring { queue },
        Request::SetVringKick { queue, event: None },
        Request::SetVringCall { queue, event: None },
        Request::GetVringGroup { queue },
        Request::SetGroupAsid { group: 0, asid: 0 },
        Request::GetIovaRange,
        Request::Suspend,
        Request::Resume,
        Request::StartLog(DirtyLog::covering(DmaAddr(FIRST), LAST)),
        Request::StopLog,
    ] {
        let shown = format!("{request:?}");
        let answer = world.run(handle.request(request));
        assert_eq!(answer, Err(VhostError::HungUp), "{shown}");
    }
    let message = handle.message(invalidate(FIRST, 1));
    assert_eq!(message, Err(VhostError::HungUp));
    assert_eq!(handle.doorbell(0).unwrap_err(), VhostError::HungUp);
    assert_eq!(world.run(handle.settle(0)), Err(VhostError::HungUp));
}

#[test]
fn removal_raises_the_hang_up_event_and_answers_every_request_with_it() {
    let world = World::new();
    let handle = world.owner();
    let err = Arc::<Event>::default();
    let memory = world.memory(4096);
    handle.message(update(&memory, FIRST)).unwrap();
    handle.set_vring_err(1, Some(Arc::clone(&err))).unwrap();
    world.run(start(&handle)).unwrap();
    let doorbell = handle.doorbell(0).unwrap();
    assert!(!handle.is_hung_up());

    // The client does nothing at all meanwhile.
    let removed = world.run(world.bus.unregister(&world.device, Removal::Orderly));
    assert_eq!(removed, Removed::Clean);
    assert!(handle.is_hung_up() && handle.hang_up().take());
    assert_eq!(err.count(), 1);
    assert!(world.parent.mapped(0).is_empty());
    assert!(world.registry.names().is_empty());
    assert!(world.device.node().children().is_empty());
    expect_hung_up(&world, &handle);
    let kicks = world.parent.kick(0).count();
    doorbell.ring(0);
    assert_eq!(world.parent.kick(0).count(), kicks);
    assert_eq!(world.run(handle.close()), Ok(()));
    assert!(world.platform.tasks().is_empty());
}

#[test]
fn a_device_that_has_been_pulled_out_is_gone_for_its_client() {
    let world = World::new();
    let handle = world.owner();
    handle.message(update(&world.memory(4096), FIRST)).unwrap();
    world.run(start(&handle)).unwrap();
    world.log();
    // SAFETY: the device is a simulation, whose workers the bus ends before it goes.
    let surprise = unsafe { Removal::surprise() };
    world.run(world.bus.unregister(&world.device, surprise));
    let touched: Vec<_> = world
        .log()
        .into_iter()
        .filter(|entry| !entry.starts_with("clear") && entry != "stop_workers")
        .collect();
    assert!(touched.is_empty(), "{touched:?}");
    expect_hung_up(&world, &handle);
    assert_eq!(world.device.owner(), None);
    assert_eq!(world.run(handle.close()), Ok(()));
}

#[test]
fn removal_ends_also_if_the_device_does_not() {
    let world = World::new();
    let handle = world.owner();
    handle.message(update(&world.memory(4096), FIRST)).unwrap();
    world.run(start(&handle)).unwrap();
    world.parent.set_resets(Resets::Never);
    let removed = world.run(world.bus.unregister(&world.device, Removal::Orderly));
    assert_eq!(removed, Removed::Leaked { queues: 1 });
    assert!(handle.is_hung_up());
    assert_eq!(world.run(handle.close()), Err(VhostError::Timeout));
}

#[test]
fn the_name_of_a_device_that_a_client_still_refers_to_is_not_used_again() {
    let world = World::new();
    let handle = world.open();
    let rebind = async {
        world.bus.set_override(&world.device, Some("none")).await;
        world.bus.set_override(&world.device, None).await;
    };
    world.run(rebind);
    assert!(handle.is_hung_up());
    assert_eq!(world.registry.names(), ["vhost-vdpa-1"]);
    assert_eq!(
        world.open_with(OpenOptions::default()).unwrap_err(),
        VhostError::NotFound
    );
    drop(handle);
    world.platform.run_until_stalled();
    world.run(async {
        world.bus.set_override(&world.device, Some("none")).await;
        world.bus.set_override(&world.device, None).await;
    });
    assert_eq!(world.registry.names(), [NAME]);
}

#[test]
fn the_system_goes_down_without_asking_the_client() {
    let world = World::new();
    let handle = world.owner();
    world.run(start(&handle)).unwrap();
    assert_eq!(
        world.run(power::suspend(&world.root)),
        Err(power::PowerError::Busy)
    );
    world.run(power::shutdown(&world.root));
    assert!(handle.is_hung_up() && !world.parent.is_ready(0));
    assert_eq!(
        world.open_with(OpenOptions::default()).unwrap_err(),
        VhostError::NotFound
    );
}

#[test]
fn a_device_that_nobody_has_open_does_not_keep_the_system_from_sleeping() {
    let world = World::new();
    assert_eq!(world.run(power::suspend(&world.root)), Ok(()));
    assert_eq!(world.run(power::resume(&world.root)), Ok(()));
    drop(world.open());
}
