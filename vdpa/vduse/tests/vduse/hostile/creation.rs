//! What can be created, set up, opened and destroyed.

use std::time::Duration;

use vdpa_vduse::protocol::{ApiVersion, ConfigError, DeviceConfig, ProtocolFeatures};
use vdpa_vduse::{CreateError, DestroyError, OpenError, Options, TaskError};

use super::play;
use crate::driver::{Driver, Puppet, create, setup};
use crate::world::{Shared, World};

#[test]
fn a_queue_is_not_set_up_after_driver_ok_in_either_version() {
    for version in [ApiVersion::V0, ApiVersion::V1] {
        play(async |world| {
            let task = create(
                world,
                Options {
                    version,
                    ..Options::default()
                },
            );
            let _puppet = Puppet::start(world, &task);
            let mut driver = Driver::take(world).await;
            assert_eq!(task.set_up_queue(setup(0)), Err(TaskError::Attached));
            driver.start(false).await.unwrap();
            assert_eq!(task.set_up_queue(setup(0)), Err(TaskError::Attached));
            assert_eq!(driver.claim.queue_size_limits(0).unwrap().1, 64);
            driver.leave(world).await;
        });
    }
}

#[test]
fn a_queue_has_a_size_and_a_group_that_there_are() {
    let world = World::new();
    let task = create(&world, Options::default());
    for size_max in [0, 1, 3, 65, 2048, 0xffff] {
        let setup = vdpa_vduse::protocol::QueueSetup {
            size_max,
            ..setup(0)
        };
        assert_eq!(
            task.set_up_queue(setup),
            Err(TaskError::Setup),
            "{size_max}"
        );
    }
    for group in [1, 0x1_0000, u32::MAX] {
        let setup = vdpa_vduse::protocol::QueueSetup { group, ..setup(0) };
        assert_eq!(task.set_up_queue(setup), Err(TaskError::Setup), "{group}");
    }
    for index in [2, 0x1_0000, u32::MAX] {
        assert_eq!(task.set_up_queue(setup(index)), Err(TaskError::OutOfRange));
    }
    assert_eq!(
        world.control.offers().len(),
        1,
        "what was said before holds"
    );
}

#[test]
fn a_device_is_had_by_one_task_and_destroyed_by_nobody_else() {
    play(async |world| {
        let task = create(world, Options::default());
        assert_eq!(world.control.open("device").err(), Some(OpenError::Busy));
        assert_eq!(world.control.open("none").err(), Some(OpenError::NoDevice));
        assert_eq!(world.control.destroy("device"), Err(DestroyError::Busy));
        assert_eq!(world.control.destroy("none"), Err(DestroyError::NoDevice));
        let puppet = Puppet::start(world, &task);
        let driver = Driver::take(world).await;
        puppet.stop();
        world.kernel.sleep(Duration::from_millis(1)).await;
        drop(task);
        // In use: it cannot go.
        assert_eq!(world.control.destroy("device"), Err(DestroyError::Busy));
        driver.leave(world).await;
        world.control.destroy("device").unwrap();
        assert_eq!(
            world.control.open("device").err(),
            Some(OpenError::NoDevice)
        );
    });
}

#[test]
fn a_device_that_this_parent_cannot_serve_is_not_created() {
    let world = World::new();
    let good = Shared::disk().config("disk");
    let refused = |change: &dyn Fn(&mut DeviceConfig, &mut Options), error| {
        let (mut config, mut options) = (good.clone(), Options::default());
        change(&mut config, &mut options);
        assert_eq!(world.control.create(&config, options), Err(error));
    };
    // ORDER_PLATFORM, SR_IOV, NOTIFICATION_DATA, RING_RESET, ADMIN_VQ, NOTIFY_ON_EMPTY.
    for bit in [36, 37, 38, 40, 41, 24] {
        refused(
            &|config, _| config.features |= 1 << bit,
            CreateError::Features,
        );
    }
    refused(
        &|config, _| config.features &= !(1 << 32),
        CreateError::Features,
    );
    refused(&|config, _| config.queues = 0, CreateError::Count);
    refused(&|config, _| config.queues = 65, CreateError::Count);
    refused(&|config, _| config.groups = 65, CreateError::Count);
    refused(&|config, _| config.address_spaces = 65, CreateError::Count);
    refused(&|_, options| options.in_flight = 0, CreateError::InFlight);
    refused(&|_, options| options.in_flight = 257, CreateError::InFlight);
    refused(
        &|_, options| options.deadline = Duration::ZERO,
        CreateError::Deadline,
    );
    refused(
        &|_, options| options.deadline = Duration::from_secs(26),
        CreateError::Deadline,
    );
    refused(
        &|_, options| options.features = ProtocolFeatures(4),
        CreateError::ProtocolFeatures,
    );
    let wce_error = ConfigError::WriteCacheSwitch;
    refused(
        &|config, _| config.features |= 1 << 11,
        CreateError::Config(wce_error),
    );
    world.control.create(&good, Options::default()).unwrap();
    let again = world.control.create(&good, Options::default());
    assert_eq!(again, Err(CreateError::Exists));
}
