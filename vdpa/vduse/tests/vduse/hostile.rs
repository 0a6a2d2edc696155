//! What a task cannot do to its driver, entry by entry of what Linux had to learn.

mod config;
mod creation;
mod interrupts;
mod memory;
mod messages;
mod requests;

use std::sync::Arc;

use vdpa_vduse::{Options, Task, TaskError};
use virtio::DeviceStatus;

use crate::driver::{Driver, Puppet, create};
use crate::world::World;

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
