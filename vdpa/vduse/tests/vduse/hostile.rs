//! What a task cannot do to its driver, entry by entry of what Linux had to learn.

use std::sync::Arc;
use std::time::Duration;

use embassy_futures::join::join;
use embassy_futures::select::{Either, select};
use embassy_futures::yield_now;
use vdpa::device::Removal;
use vdpa::ops::OpError;
use vdpa_vduse::protocol::{
    ApiVersion, ConfigError, DeviceConfig, Message, Outcome, ProtocolFeatures, Request, Response,
};
use vdpa_vduse::{CreateError, DestroyError, OpenError, Options, Task, TaskError};
use virtio::DeviceStatus;

use crate::driver::{ANSWER, CONFIG, Driver, Manner, Puppet, REQUEST, UNTOUCHED, create, setup};
use crate::world::{DEADLINE, Shared, World};

/// A driver whose device runs, and its task.
async fn running(world: &World) -> (Driver, Arc<Task>, Puppet) {
    let task = create(world, Options::default());
    let puppet = Puppet::start(world, &task);
    let mut driver = Driver::take(world).await;
    driver.start(false).await.unwrap();
    (driver, task, puppet)
}

/// The device is broken, everybody is told, and a reset is all that is left.
async fn is_broken(driver: &Driver, task: &Task) {
    let status = driver.claim.status().unwrap();
    assert!(
        status.contains(DeviceStatus::DEVICE_NEEDS_RESET),
        "{status:?}"
    );
    assert!(driver.config_interrupts() > 0, "the driver is told");
    assert_eq!(task.receive(), Err(TaskError::Broken));
    assert_eq!(task.take(0), Err(TaskError::Broken));
    assert_eq!(task.update_config(0, &[1]), Err(TaskError::Broken));
    assert_eq!(task.flush(0), Err(TaskError::Broken));
}

fn play(test: impl AsyncFnOnce(&World)) {
    let world = World::new();
    world.platform.block_on(test(&world));
    assert_eq!(world.platform.heap().outstanding(), 0);
}

#[test]
fn an_interrupt_while_suspended_is_refused_and_no_lock_is_held() {
    play(async |world| {
        let (driver, task, _puppet) = running(world).await;
        driver.claim.suspend().await.unwrap();
        let (queue, config) = (driver.interrupts(), driver.config_interrupts());
        for _ in 0..3 {
            // Whatever was refused, the next call does not wait for ever.
            assert_eq!(task.inject_interrupt(0), Err(TaskError::NotRunning));
            assert_eq!(task.inject_config_interrupt(), Err(TaskError::NotRunning));
            assert_eq!(task.take(0), Ok(None));
            assert_eq!(task.flush(0), Ok(()));
        }
        task.update_config(0, &[9]).unwrap();
        assert_eq!(
            (driver.interrupts(), driver.config_interrupts()),
            (queue, config)
        );
        driver.claim.resume().await.unwrap();
        assert_eq!(
            driver.config_interrupts(),
            config + 1,
            "it is told afterwards"
        );
        task.inject_interrupt(0).unwrap();
        assert_eq!(driver.interrupts(), queue + 1);
        driver.leave(world).await;
    });
}

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

/// CVE-2022-2308: the driver read what happened to lie behind a short configuration.
#[test]
fn behind_the_configuration_there_is_nothing_to_read() {
    play(async |world| {
        let (driver, task, _puppet) = running(world).await;
        let mut bytes = [0xee; 8];
        let end = CONFIG as u32;
        for offset in [end - 7, end, end + 1, u32::MAX] {
            assert!(
                driver.claim.read_config(offset, &mut bytes).is_err(),
                "{offset}"
            );
            assert_eq!(bytes, [0xee; 8]);
        }
        driver.claim.read_config(end - 8, &mut bytes).unwrap();
        assert_eq!(bytes, [4, 5, 6, 7, 8, 9, 10, 11]);
        drop(task);
        driver.leave(world).await;
    });
}

/// Linux, dc1db0060c02: an offset that wraps.
#[test]
fn a_configuration_update_stays_inside() {
    play(async |world| {
        let (driver, task, _puppet) = running(world).await;
        let end = CONFIG as u32;
        for (offset, len) in [
            (end, 1),
            (end - 1, 2),
            (0, 13),
            (u32::MAX, 2),
            (u32::MAX - 1, 4),
        ] {
            let updated = task.update_config(offset, &vec![1; len]);
            assert_eq!(updated, Err(TaskError::OutOfRange), "{len} at {offset}");
        }
        let generation = driver.claim.config_generation().unwrap();
        let mut bytes = [0; CONFIG];
        driver.claim.read_config(0, &mut bytes).unwrap();
        assert!((0..CONFIG as u8).eq(bytes), "nothing has changed");
        task.update_config(end - 1, &[0x77]).unwrap();
        assert_ne!(driver.claim.config_generation().unwrap(), generation);
        driver.leave(world).await;
    });
}

/// Linux, ff9f9c6e7484: more was copied than there was.
#[test]
fn an_answer_of_another_length_is_none() {
    play(async |world| {
        let (driver, task, _puppet) = running(world).await;
        let before = driver.violations();
        for len in [0, 1, 151, 153, 4096] {
            let reply = task.reply(&vec![0; len]);
            assert!(matches!(reply, Err(TaskError::Decode(_))), "{len}");
        }
        let mut reserved = Response::new(0, Outcome::Done).encode();
        reserved[8] = 1;
        assert!(matches!(task.reply(&reserved), Err(TaskError::Decode(_))));
        assert_eq!(driver.violations(), before + 6, "it is counted");
        driver.leave(world).await;
    });
}

#[test]
fn an_answer_to_nobody_twice_or_late_changes_nothing() {
    play(async |world| {
        let (mut driver, task, puppet) = running(world).await;
        for id in [0, 1, 100, u32::MAX] {
            let reply = Response::new(id, Outcome::Failed).encode();
            assert_eq!(task.reply(&reply), Err(TaskError::Nobody), "{id}");
        }
        puppet.be(Manner::Twice);
        driver.claim.suspend().await.unwrap();
        driver.claim.resume().await.unwrap();
        driver.reset().await.unwrap();
        driver.start(true).await.unwrap();
        assert!(
            !driver
                .claim
                .status()
                .unwrap()
                .contains(DeviceStatus::DEVICE_NEEDS_RESET)
        );
        driver.leave(world).await;
    });
}

/// Linux: a message that timed out while it was read was taken off its list twice.
#[test]
fn a_time_out_while_the_task_reads_breaks_the_device_once() {
    play(async |world| {
        let (driver, task, puppet) = running(world).await;
        puppet.stop();
        world.kernel.sleep(Duration::from_millis(1)).await;
        let before = world.kernel.now();
        let (suspended, message) = join(driver.claim.suspend(), async {
            task.wait().await;
            let bytes = task.receive().unwrap().unwrap();
            Message::decode(&bytes).unwrap()
        })
        .await;
        assert_eq!(suspended, Err(OpError::Timeout));
        assert_eq!(world.kernel.now() - before, DEADLINE);
        assert_eq!(message.request, Request::Suspend);
        let late = Response::new(message.id, Outcome::Done).encode();
        assert_eq!(task.reply(&late), Err(TaskError::Broken));
        is_broken(&driver, &task).await;
        driver.leave(world).await;
    });
}

/// Linux: an interrupt was injected while the device was reset.
#[test]
fn after_a_reset_nobody_is_interrupted() {
    play(async |world| {
        let (mut driver, task, _puppet) = running(world).await;
        driver.offer(1);
        let job = task.take(0).unwrap().unwrap();
        driver.reset().await.unwrap();
        let (queue, config) = (driver.interrupts(), driver.config_interrupts());
        assert_eq!(task.inject_interrupt(0), Err(TaskError::NotRunning));
        assert_eq!(task.inject_config_interrupt(), Err(TaskError::NotRunning));
        assert_eq!(task.complete(job), Err(TaskError::NotRunning));
        assert_eq!(task.flush(0), Ok(()));
        assert_eq!(task.take(0), Ok(None));
        assert_eq!(
            (driver.interrupts(), driver.config_interrupts()),
            (queue, config)
        );
        // A request from before is none of the next driver's.
        driver.start(false).await.unwrap();
        driver.offer(2);
        let next = task.take(0).unwrap().unwrap();
        assert_eq!(task.read(job, 0, &mut [0]), Err(TaskError::NoJob));
        assert_eq!(task.complete(job), Err(TaskError::NoJob));
        task.complete(next).unwrap();
        driver.leave(world).await;
    });
}

#[test]
fn a_queue_that_is_not_there_or_not_ready_has_no_interrupts_and_no_requests() {
    play(async |world| {
        let (driver, task, _puppet) = running(world).await;
        assert_eq!(task.inject_interrupt(1), Err(TaskError::NotReady));
        assert_eq!(task.take(1), Ok(None));
        for queue in [2, 64, 0x7fff, u16::MAX] {
            assert_eq!(task.inject_interrupt(queue), Err(TaskError::OutOfRange));
            assert_eq!(task.take(queue), Err(TaskError::OutOfRange));
            assert_eq!(task.flush(queue), Err(TaskError::OutOfRange));
            assert_eq!(task.queue_info(queue), Err(TaskError::OutOfRange));
        }
        driver.leave(world).await;
    });
}

#[test]
fn the_driver_is_told_of_the_bytes_that_were_written() {
    play(async |world| {
        let (mut driver, task, _puppet) = running(world).await;
        // What is written, and how much of it the driver may look at.
        let cases: [(&[(u64, usize)], usize); 7] = [
            (&[], 0),
            (&[(0, 5)], 5),
            (&[(0, 5), (5, 3)], 8),
            (&[(4, 8)], 0),
            (&[(0, 4), (60, 4)], 4),
            (&[(0, 1000)], ANSWER),
            (&[(0, 8), (2, 3), (u64::MAX, 5)], 8),
        ];
        for (writes, told) in cases {
            assert!(driver.offer(3));
            let job = task.take(0).unwrap().unwrap();
            assert_eq!(
                (job.readable(), job.writable()),
                (REQUEST as u64, ANSWER as u64)
            );
            for (offset, len) in writes {
                task.write(job, *offset, &vec![0x11; *len]).unwrap();
            }
            let mut beyond = [0xee; 2 * REQUEST];
            assert_eq!(task.read(job, 1, &mut beyond), Ok(REQUEST - 1));
            assert_eq!(beyond[..REQUEST - 1], [3; REQUEST - 1]);
            assert!(beyond[REQUEST - 1..].iter().all(|byte| *byte == 0xee));
            assert_eq!(task.read(job, u64::MAX, &mut beyond), Ok(0));
            task.complete(job).unwrap();
            assert_eq!(task.complete(job), Err(TaskError::NoJob));
            assert_eq!(task.write(job, 0, &[1]), Err(TaskError::NoJob));
            task.flush(0).unwrap();
            let (bytes, written) = driver.answered().unwrap();
            assert_eq!(written, told, "{writes:?}");
            let touched = bytes.iter().filter(|byte| **byte != UNTOUCHED).count();
            assert!(touched >= told && bytes[..told].iter().all(|byte| *byte == 0x11));
        }
        driver.leave(world).await;
    });
}

#[test]
fn features_that_the_task_refuses_are_not_agreed_on() {
    play(async |world| {
        let task = create(world, Options::default());
        let puppet = Puppet::start(world, &task);
        let mut driver = Driver::take(world).await;
        let claim = Arc::clone(&driver.claim);
        let known = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        claim.set_status(known).await.unwrap();
        claim
            .set_driver_features(crate::driver::features(false))
            .unwrap();
        puppet.be(Manner::Refusing);
        let agreed = claim.set_status(known | DeviceStatus::FEATURES_OK).await;
        assert_eq!(agreed, Err(OpError::FeaturesRefused));
        assert!(!claim.status().unwrap().contains(DeviceStatus::FEATURES_OK));
        // The reset is one, whatever the task says to it.
        driver.reset().await.unwrap();
        assert!(claim.status().unwrap().is_empty());
        assert!(claim.set_status(DeviceStatus::ACKNOWLEDGE).await.is_err());
        puppet.be(Manner::Honest);
        driver.reset().await.unwrap();
        driver.start(false).await.unwrap();
        drop(claim);
        driver.leave(world).await;
    });
}

#[test]
fn a_task_that_does_not_know_where_its_queue_stands_is_not_believed() {
    play(async |world| {
        let (mut driver, task, puppet) = running(world).await;
        driver.offer(1);
        let job = task.take(0).unwrap().unwrap();
        task.complete(job).unwrap();
        task.flush(0).unwrap();
        driver.claim.suspend().await.unwrap();
        assert!(driver.claim.queue_state(0).await.is_ok());
        puppet.be(Manner::Lost);
        let state = driver.claim.queue_state(0).await;
        assert_eq!(state, Err(OpError::Broken));
        is_broken(&driver, &task).await;
        driver.leave(world).await;
    });
}

#[test]
fn a_task_that_refuses_to_start_a_queue_breaks_its_device() {
    play(async |world| {
        let (driver, task, puppet) = running(world).await;
        puppet.be(Manner::Refusing);
        let stopped = driver.claim.stop_queue(0).await;
        assert_eq!(stopped, Err(OpError::Broken));
        is_broken(&driver, &task).await;
        driver.leave(world).await;
    });
}

#[test]
fn requests_that_a_suspended_task_keeps_come_again_afterwards() {
    play(async |world| {
        let (mut driver, task, _puppet) = running(world).await;
        (0..3).for_each(|byte| assert!(driver.offer(byte)));
        let kept: Vec<_> = (0..3).map(|_| task.take(0).unwrap().unwrap()).collect();
        task.complete(kept[0]).unwrap();
        driver.claim.suspend().await.unwrap();
        assert!(driver.answered().is_some(), "what was answered is shown");
        assert!(driver.answered().is_none());
        for job in &kept[1..] {
            assert_eq!(task.complete(*job), Err(TaskError::NotRunning));
        }
        driver.claim.resume().await.unwrap();
        for byte in 1..3 {
            assert_eq!(
                task.complete(kept[usize::from(byte)]),
                Err(TaskError::NoJob)
            );
            let job = task.take(0).unwrap().unwrap();
            let mut first = [0];
            task.read(job, 0, &mut first).unwrap();
            assert_eq!(first, [byte]);
            task.complete(job).unwrap();
        }
        task.flush(0).unwrap();
        assert!(driver.answered().is_some() && driver.answered().is_some());
        driver.leave(world).await;
    });
}

#[test]
fn a_task_that_keeps_an_early_request_and_answers_a_later_one_cannot_be_suspended() {
    play(async |world| {
        let (mut driver, task, _puppet) = running(world).await;
        driver.offer(1);
        driver.offer(2);
        let _early = task.take(0).unwrap().unwrap();
        let late = task.take(0).unwrap().unwrap();
        task.complete(late).unwrap();
        assert_eq!(driver.claim.suspend().await, Err(OpError::Broken));
        is_broken(&driver, &task).await;
        driver.leave(world).await;
    });
}

#[test]
fn a_flood_takes_no_memory_and_is_counted() {
    play(async |world| {
        let (driver, task, _puppet) = running(world).await;
        let before = driver.violations();
        let bytes = Response::new(7, Outcome::Done).encode();
        for _ in 0..10_000 {
            assert!(task.reply(&bytes).is_err());
            assert!(task.inject_interrupt(1).is_err());
            task.inject_interrupt(0).unwrap();
            task.inject_config_interrupt().unwrap();
            task.update_config(0, &[1, 2, 3]).unwrap();
            assert_eq!(task.take(0), Ok(None));
        }
        assert_eq!(driver.violations(), before + 20_000);
        // The driver goes on as before.
        driver.claim.suspend().await.unwrap();
        driver.leave(world).await;
    });
}

#[test]
fn memory_that_was_taken_away_is_gone_for_the_task_at_once() {
    play(async |world| {
        let (mut driver, task, puppet) = running(world).await;
        driver.offer(5);
        let job = task.take(0).unwrap().unwrap();
        task.read(job, 0, &mut [0; 4]).unwrap();
        driver.unmap_all();
        assert!(matches!(
            task.read(job, 0, &mut [0; 4]),
            Err(TaskError::Fault(_))
        ));
        assert!(matches!(task.write(job, 0, &[1]), Err(TaskError::Fault(_))));
        puppet.seen.lock().unwrap().clear();
        driver.attachment.settle(0).await.unwrap();
        let seen = puppet.seen.lock().unwrap().clone();
        assert!(
            matches!(seen[..], [Request::UpdateIotlb { .. }]),
            "{seen:?}"
        );
        // A task that is not interested does not keep the memory.
        driver.attachment.settle(0).await.unwrap();
        driver.leave(world).await;
    });
}

#[test]
fn nobody_else_waits_for_a_task_that_is_slow() {
    play(async |world| {
        let (driver, _task, puppet) = running(world).await;
        puppet.be(Manner::Silent);
        let medium = Shared::disk();
        let stop = world.run_disk(&medium);
        let before = world.kernel.now();
        let removing = async {
            driver.leave(world).await;
            world.kernel.now() - before
        };
        let others = async {
            // The bus takes another device, and gives it away, while the first is about to leave.
            let ops = world.control.attach("disk").unwrap();
            let device = world.add(ops).await;
            let disk = world.disks.take().unwrap();
            disk.flush().await.unwrap();
            let waited = world.kernel.now() - before;
            drop(disk);
            world.vdpa.unregister(&device, Removal::Orderly).await;
            waited
        };
        let (removed, waited) = join(removing, others).await;
        assert!(removed <= 2 * DEADLINE, "{removed:?}");
        assert!(waited < DEADLINE, "{waited:?}");
        stop.raise();
    });
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

#[test]
fn what_nobody_waits_for_any_more_needs_no_answer() {
    play(async |world| {
        let (driver, task, puppet) = running(world).await;
        puppet.stop();
        world.kernel.sleep(Duration::from_millis(1)).await;
        let message = async {
            task.wait().await;
            task.receive().unwrap().unwrap()
        };
        // Whoever asks loses patience when the message has been read.
        let bytes = match select(driver.claim.suspend(), message).await {
            Either::First(suspended) => panic!("{suspended:?}"),
            Either::Second(bytes) => bytes,
        };
        let id = Message::decode(&bytes).unwrap().id;
        let late = Response::new(id, Outcome::Done).encode();
        assert_eq!(task.reply(&late), Err(TaskError::Nobody));
        // One that was not read is not there any more.
        select(driver.claim.suspend(), yield_now()).await;
        assert_eq!(task.receive(), Ok(None));
        let _puppet = Puppet::start(world, &task);
        driver.leave(world).await;
    });
}

#[test]
fn a_queue_whose_requests_the_task_keeps_is_not_stopped() {
    play(async |world| {
        let (mut driver, task, _puppet) = running(world).await;
        driver.offer(1);
        driver.offer(2);
        let _early = task.take(0).unwrap().unwrap();
        let late = task.take(0).unwrap().unwrap();
        task.complete(late).unwrap();
        assert_eq!(driver.claim.stop_queue(0).await, Err(OpError::Broken));
        is_broken(&driver, &task).await;
        driver.leave(world).await;
    });
}

#[test]
fn memory_that_was_taken_away_is_kept_by_nothing() {
    play(async |world| {
        let (mut driver, task, _puppet) = running(world).await;
        driver.offer(5);
        let job = task.take(0).unwrap().unwrap();
        task.read(job, 0, &mut [0; 4]).unwrap();
        driver.unmap_all();
        driver.attachment.settle(0).await.unwrap();
        // The device reaches nothing, so its driver may let go of what it has lent.
        driver.let_go();
        assert_eq!(world.platform.heap().outstanding(), 0);
        driver.leave(world).await;
    });
}

#[test]
fn an_answer_from_before_a_reset_does_not_count_after_it() {
    play(async |world| {
        let task = create(world, Options::default());
        // Without the bus, which lets one operation wait for the other.
        let ops = world.control.attach("device").unwrap();
        let receive = async || {
            loop {
                task.wait().await;
                if let Some(bytes) = task.receive().unwrap() {
                    return Message::decode(&bytes).unwrap();
                }
            }
        };
        let answer = |message: Message| {
            let response = Response::new(message.id, Outcome::Done);
            task.reply(&response.encode()).unwrap();
        };
        let reset = async {
            let set = receive().await;
            let (reset, ()) = join(ops.reset(), async {
                let reset = receive().await;
                assert_eq!(reset.request, Request::SetStatus(0));
                answer(set);
                answer(reset);
            })
            .await;
            reset.unwrap();
        };
        let (set, ()) = join(ops.set_status(DeviceStatus::ACKNOWLEDGE), reset).await;
        assert_eq!(set, Err(OpError::WrongState));
        assert!(ops.status().unwrap().is_empty());
    });
}

#[test]
fn a_task_that_comes_and_goes_takes_no_memory() {
    play(async |world| {
        let (driver, task, puppet) = running(world).await;
        puppet.stop();
        world.kernel.sleep(Duration::from_millis(1)).await;
        drop(task);
        for _ in 0..1000 {
            drop(world.control.open("device").unwrap());
        }
        let waiting = world.platform.tasks();
        let waiting = waiting.iter().filter(|name| *name == "device");
        assert_eq!(waiting.count(), 1, "one task waits for the next");
        // The time runs from the latest end on.
        world.kernel.sleep(DEADLINE / 2).await;
        drop(world.control.open("device").unwrap());
        world.kernel.sleep(DEADLINE * 3 / 4).await;
        let task = Arc::new(world.control.open("device").unwrap());
        assert_eq!(task.receive(), Ok(None));
        drop(task);
        world.kernel.sleep(DEADLINE * 2).await;
        let task = world.control.open("device").unwrap();
        is_broken(&driver, &task).await;
        drop(task);
        driver.leave(world).await;
    });
}
