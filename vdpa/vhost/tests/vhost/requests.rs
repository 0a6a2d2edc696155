//! The requests about the device: each in order, and each in error.

use std::sync::Arc;

use vdpa::Features;
use vdpa::iotlb::IovaRange;
use vdpa::ops::Abilities;
use vdpa::testing::{Traits, Translation};
use vhost_vdpa::{BackendFeatures, Reply, Request, VhostError};
use virtio::DeviceStatus;
use virtq::Event;

use crate::world::{
    FIRST, LAST, NET, NO_FEATURES, World, agree, agreed, always, reset, running, start, translating,
};

#[test]
fn ids_counts_and_ranges_are_told_without_an_owner() {
    let world = World::new();
    let handle = world.open();
    let ask = |request| world.run(handle.request(request));
    assert_eq!(ask(Request::GetDeviceId), Ok(Reply::Id(NET)));
    assert_eq!(ask(Request::GetVendorId), Ok(Reply::Id(0xfa4e)));
    assert_eq!(ask(Request::GetVqsCount), Ok(Reply::Count(3)));
    assert_eq!(ask(Request::GetGroupNum), Ok(Reply::Count(2)));
    assert_eq!(ask(Request::GetAsNum), Ok(Reply::Count(3)));
    assert_eq!(ask(Request::GetConfigSize), Ok(Reply::Count(12)));
    assert_eq!(
        ask(Request::GetStatus),
        Ok(Reply::Status(DeviceStatus::empty()))
    );
    let range = IovaRange::from_bounds(FIRST, LAST).unwrap();
    assert_eq!(ask(Request::GetIovaRange), Ok(Reply::IovaRange(range)));
    // The smallest of the largest: what every queue can have.
    assert_eq!(ask(Request::GetVringNum), Ok(Reply::VringSize(32)));
}

#[test]
fn what_concerns_queues_and_memory_needs_an_owner() {
    let world = World::new();
    let handle = world.open();
    let event = || Some(Arc::<Event>::default());
    let address = crate::world::somewhere();
    let queue = 0;
    let state = vdpa::ops::QueueState::Split { avail_index: 0 };
    let size = 16;
    for request in [
        Request::SetVringNum { queue, size },
        Request::SetVringAddr { queue, address },
        Request::SetVringBase { queue, state },
        Request::GetVringBase { queue },
        Request::EnableVring { queue },
        Request::DisableVring { queue },
        Request::SetVringKick {
            queue,
            event: event(),
        },
        Request::SetVringCall {
            queue,
            event: event(),
        },
        Request::SetVringErr {
            queue,
            event: event(),
        },
        Request::SetGroupAsid { group: 0, asid: 0 },
    ] {
        let shown = format!("{request:?}");
        let answer = world.run(handle.request(request));
        assert_eq!(answer, Err(VhostError::NoOwner), "{shown}");
    }
    assert_eq!(
        handle.message(crate::world::invalidate(FIRST, 1)),
        Err(VhostError::NoOwner)
    );
    assert_eq!(handle.doorbell(0).unwrap_err(), VhostError::NoOwner);
    assert_eq!(handle.notification_area(0), Err(VhostError::NoOwner));
    assert_eq!(world.run(handle.settle(0)), Err(VhostError::NoOwner));
    assert_eq!(
        world.run(handle.request(Request::SetOwner)),
        Ok(Reply::Done)
    );
    assert_eq!(handle.set_owner(), Err(VhostError::Busy));
}

#[test]
fn features_are_fixed_once_they_have_been_agreed_on() {
    let world = World::new();
    let handle = world.open();
    let Ok(Reply::Features(offered)) = world.run(handle.request(Request::GetFeatures)) else {
        panic!("the device offers something");
    };
    assert!(offered.contains(virtio::net::F::MAC));
    let not_offered = Features::from_bits(1 << 60);
    assert_eq!(handle.set_features(not_offered), Err(VhostError::Invalid));
    world.run(agree(&handle, virtio::net::F::MAC)).unwrap();
    assert!(world.parent.accepted().contains(virtio::net::F::MAC));
    let late = world.run(handle.request(Request::SetFeatures(offered)));
    assert_eq!(late, Err(VhostError::Busy));
    world.run(handle.set_status(reset())).unwrap();
    assert_eq!(handle.set_features(offered), Ok(()));
}

/// Linux carries them in `VHOST_GET_FEATURES_ARRAY` and `VHOST_SET_FEATURES_ARRAY`.
#[test]
fn a_client_accepts_features_of_the_upper_half() {
    use virtio::net::F;
    let world = World::new();
    let handle = world.open();
    assert!(handle.features().unwrap().contains(F::RSS_CONTEXT));
    let not_offered = Features::from_bits(1 << 127);
    assert_eq!(handle.set_features(not_offered), Err(VhostError::Invalid));
    world.run(agree(&handle, F::RSS_CONTEXT)).unwrap();
    let accepted = Features::from(F::RSS_CONTEXT) | always();
    assert_eq!(world.parent.accepted(), accepted);
}

#[test]
fn the_status_only_grows_until_the_device_is_reset() {
    let world = World::new();
    let handle = world.open();
    let set = |status| world.run(handle.request(Request::SetStatus(status)));
    let early = DeviceStatus::DRIVER_OK;
    assert_eq!(set(early), Err(VhostError::WrongState));
    assert_eq!(set(DeviceStatus::ACKNOWLEDGE), Ok(Reply::Done));
    assert_eq!(set(DeviceStatus::DRIVER), Err(VhostError::Invalid));
    assert_eq!(
        set(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DEVICE_NEEDS_RESET),
        Err(VhostError::Invalid)
    );
    assert_eq!(set(agreed()), Ok(Reply::Done));
    assert_eq!(set(running()), Ok(Reply::Done));
    assert_eq!(handle.status(), Ok(running()));
    assert_eq!(set(reset()), Ok(Reply::Done));
    assert_eq!(world.parent.status(), DeviceStatus::empty());
}

#[test]
fn a_device_that_refuses_the_features_says_so() {
    let world = World::new();
    let handle = world.open();
    world.parent.refuse_features();
    let result = world.run(agree(&handle, Features::EMPTY));
    assert_eq!(result, Err(VhostError::FeaturesRefused));
}

#[test]
fn backend_features_are_those_that_the_device_backs() {
    let world = World::with(Traits {
        abilities: Abilities::SUSPEND,
        ..translating(Translation::Incremental)
    });
    let handle = world.open();
    let offered = BackendFeatures::IOTLB_MSG_V2
        | BackendFeatures::IOTLB_BATCH
        | BackendFeatures::IOTLB_ASID
        | BackendFeatures::SUSPEND;
    assert_eq!(
        world.run(handle.request(Request::GetBackendFeatures)),
        Ok(Reply::BackendFeatures(offered))
    );
    let unbacked = BackendFeatures::RESUME;
    assert_eq!(
        handle.set_backend_features(unbacked),
        Err(VhostError::Unsupported)
    );
    let unknown = BackendFeatures::from_bits_retain(1 << 40);
    assert_eq!(
        world.run(handle.request(Request::SetBackendFeatures(unknown))),
        Err(VhostError::Unsupported)
    );
    assert_eq!(handle.set_backend_features(offered), Ok(()));
}

#[test]
fn descriptors_apart_need_address_spaces() {
    let world = World::with(Traits {
        descriptor_group: Some(1),
        ..translating(Translation::Incremental)
    });
    let handle = world.open();
    let alone = BackendFeatures::DESC_ASID;
    assert_eq!(handle.set_backend_features(alone), Err(VhostError::Invalid));
    let both = alone | BackendFeatures::IOTLB_ASID;
    assert_eq!(handle.set_backend_features(both), Ok(()));
    assert_eq!(
        world.run(handle.request(Request::GetVringDescGroup { queue: 0 })),
        Ok(Reply::Group(1))
    );
    assert_eq!(handle.vring_desc_group(3), Err(VhostError::NoSuchQueue));
}

#[test]
fn what_the_platform_translates_survives_a_reset() {
    let world = World::with(Traits {
        abilities: Abilities::empty(),
        ..Traits::default()
    });
    let options = vhost_vdpa::OpenOptions {
        // SAFETY: the client's rings are of memory of its own.
        trust: unsafe { vdpa::dma::Trust::unsafe_no_iommu() },
        ..Default::default()
    };
    let handle = world.open_with(options).unwrap();
    let offered = handle.backend_features().unwrap();
    assert!(offered.contains(BackendFeatures::IOTLB_PERSIST));
    assert!(!offered.contains(BackendFeatures::DESC_ASID));
    assert_eq!(handle.set_backend_features(NO_FEATURES), Ok(()));
}

#[test]
fn the_configuration_is_read_and_written_inside_its_bounds() {
    let world = World::new();
    let handle = world.open();
    let get = |offset, len| world.run(handle.request(Request::GetConfig { offset, len }));
    let set = |offset, bytes: &[u8]| {
        let bytes = bytes.to_vec();
        world.run(handle.request(Request::SetConfig { offset, bytes }))
    };
    assert_eq!(set(10, &[1, 2]), Ok(Reply::Done));
    assert_eq!(get(9, 3), Ok(Reply::Config(vec![7, 1, 2])));
    for (offset, len) in [
        (0, 0),
        (12, 1),
        (11, 2),
        (0, 13),
        (u32::MAX, 1),
        (0, u32::MAX),
    ] {
        assert_eq!(get(offset, len), Err(VhostError::NoSuchConfig));
    }
    assert_eq!(set(0, &[]), Err(VhostError::NoSuchConfig));
    assert_eq!(set(11, &[1, 2]), Err(VhostError::NoSuchConfig));
    assert_eq!(set(u32::MAX, &[1]), Err(VhostError::NoSuchConfig));
}

#[test]
fn a_change_of_the_configuration_raises_the_clients_event_also_after_a_reset() {
    let world = World::new();
    let handle = world.owner();
    let event = Arc::<Event>::default();
    let request = Request::SetConfigCall(Some(Arc::clone(&event)));
    assert_eq!(world.run(handle.request(request)), Ok(Reply::Done));
    world.parent.change_config(0, &[1]);
    assert_eq!(event.count(), 1);
    world.run(handle.set_status(reset())).unwrap();
    world.run(start(&handle)).unwrap();
    world.parent.change_config(0, &[2]);
    assert_eq!(event.count(), 2);
    handle.set_config_call(None).unwrap();
    world.parent.change_config(0, &[3]);
    assert_eq!(event.count(), 2);
}

#[test]
fn groups_move_until_the_device_runs() {
    let world = World::new();
    let handle = world.owner();
    let ask = |request| world.run(handle.request(request));
    assert_eq!(
        ask(Request::GetVringGroup { queue: 2 }),
        Ok(Reply::Group(1))
    );
    assert_eq!(
        ask(Request::GetVringGroup { queue: 3 }),
        Err(VhostError::NoSuchQueue)
    );
    assert_eq!(
        ask(Request::GetVringDescGroup { queue: 0 }),
        Err(VhostError::Unsupported)
    );
    let put = |group, asid| ask(Request::SetGroupAsid { group, asid });
    assert_eq!(put(1, 2), Ok(Reply::Done));
    assert_eq!(world.parent.group_space(1), 2);
    assert_eq!(put(2, 0), Err(VhostError::Invalid));
    assert_eq!(put(0, 3), Err(VhostError::Invalid));
    assert_eq!(put(u16::MAX, u16::MAX), Err(VhostError::Invalid));
    world.run(start(&handle)).unwrap();
    assert_eq!(put(1, 0), Err(VhostError::Busy));
}

#[test]
fn a_device_that_does_not_run_has_nothing_to_suspend() {
    let world = World::new();
    let handle = world.owner();
    assert_eq!(world.run(handle.request(Request::Suspend)), Ok(Reply::Done));
    assert!(!world.parent.is_suspended());
    world.run(start(&handle)).unwrap();
    assert_eq!(world.run(handle.suspend()), Ok(()));
    assert!(world.parent.is_suspended());
    assert_eq!(world.run(handle.request(Request::Resume)), Ok(Reply::Done));
    assert!(!world.parent.is_suspended());
}

#[test]
fn a_device_that_cannot_suspend_says_so() {
    let world = World::with(Traits {
        abilities: Abilities::empty(),
        ..translating(Translation::Incremental)
    });
    let handle = world.owner();
    world.run(start(&handle)).unwrap();
    assert_eq!(world.run(handle.suspend()), Err(VhostError::Unsupported));
    assert_eq!(world.run(handle.resume()), Err(VhostError::Unsupported));
}
