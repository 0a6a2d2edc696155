//! Memory that a task has no more, or takes up.

use std::sync::Arc;
use std::time::Duration;

use vdpa_vduse::TaskError;
use vdpa_vduse::protocol::Request;

use super::{is_broken, play, running};
use crate::world::DEADLINE;

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
