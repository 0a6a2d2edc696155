//! Messages and their answers.

use std::sync::Arc;
use std::time::Duration;

use embassy_futures::join::join;
use embassy_futures::select::{Either, select};
use embassy_futures::yield_now;
use vdpa::device::Removal;
use vdpa::ops::OpError;
use vdpa_vduse::protocol::{Message, Outcome, Request, Response};
use vdpa_vduse::{Options, TaskError};
use virtio::DeviceStatus;

use super::{is_broken, play, running};
use crate::driver::{Driver, Manner, Puppet, create};
use crate::world::{DEADLINE, Shared};

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
