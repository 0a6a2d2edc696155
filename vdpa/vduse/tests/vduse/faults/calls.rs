//! What a task calls, at each stage of its device's life.

use std::sync::Arc;

use vdpa::ops::OpError;
use vdpa_vduse::TaskError;
use virtio::DeviceStatus;
use virtq::device::Fault;

use super::{After, Life};
use crate::world::World;

/// Where a task's device is when it calls.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Attached,
    Suspended,
    QueueStopped,
    Withdrawn,
    Reset,
    Broken,
}

#[test]
fn each_call_of_a_task_fails_at_each_stage_as_it_should() {
    use TaskError::{Broken, NotReady, NotRunning};
    // What interrupts of the queue and of the configuration, and bytes of a request are answered.
    type Told = Result<(), TaskError>;
    let table: [(Stage, Told, Told, Told); 6] = [
        (
            Stage::Attached,
            Err(NotRunning),
            Err(NotRunning),
            Err(NotRunning),
        ),
        (
            Stage::Suspended,
            Err(NotRunning),
            Err(NotRunning),
            Err(NotRunning),
        ),
        (Stage::QueueStopped, Err(NotReady), Ok(()), Err(NotReady)),
        (
            Stage::Withdrawn,
            Ok(()),
            Ok(()),
            Err(TaskError::Fault(Fault::NoMapping)),
        ),
        (
            Stage::Reset,
            Err(NotRunning),
            Err(NotRunning),
            Err(NotRunning),
        ),
        (Stage::Broken, Err(Broken), Err(Broken), Err(Broken)),
    ];
    for (stage, queue, config, bytes) in table {
        let world = World::new();
        world.platform.block_on(async {
            let mut life = Life::new(&world, None).await;
            // A request of the past, which names one that there was.
            life.driver.start(false).await.unwrap();
            assert!(life.driver.offer(7));
            let task = life.saboteur.task().unwrap();
            let job = task.take(0).unwrap().unwrap();
            let claim = Arc::clone(&life.driver.claim);
            match stage {
                Stage::Attached => {
                    life.driver.reset().await.unwrap();
                    claim.set_status(DeviceStatus::ACKNOWLEDGE).await.unwrap();
                }
                Stage::Suspended => claim.suspend().await.unwrap(),
                Stage::QueueStopped => claim.stop_queue(0).await.unwrap(),
                Stage::Withdrawn => life.driver.unmap_all(),
                Stage::Reset => life.driver.reset().await.unwrap(),
                Stage::Broken => {
                    life.saboteur.fall_silent();
                    assert_eq!(claim.suspend().await, Err(OpError::Timeout));
                }
            }
            drop(claim);
            let broken = matches!(stage, Stage::Broken);
            let or_broken = |told: Told| if broken { Err(Broken) } else { told };
            for _ in 0..2 {
                assert_eq!(task.inject_interrupt(0), queue, "{stage:?}");
                assert_eq!(task.inject_config_interrupt(), config, "{stage:?}");
                assert_eq!(task.read(job, 0, &mut [0]).map(drop), bytes, "{stage:?}");
                assert_eq!(task.write(job, 0, &[0]).map(drop), bytes, "{stage:?}");
                if !matches!(stage, Stage::Withdrawn) {
                    assert_eq!(task.complete(job), bytes, "{stage:?}");
                    assert_eq!(task.take(0).map(drop), or_broken(Ok(())), "{stage:?}");
                    assert_eq!(task.flush(0), or_broken(Ok(())), "{stage:?}");
                }
                let too_far = task.update_config(u32::MAX, &[1]);
                assert_eq!(too_far, or_broken(Err(TaskError::OutOfRange)));
                assert_eq!(task.update_config(0, &[1]), or_broken(Ok(())));
                let set_up = task.set_up_queue(crate::driver::setup(0));
                assert_eq!(set_up, or_broken(Err(TaskError::Attached)));
                assert!(task.reply(&[0; 3]).is_err());
                let no_queue = task.queue_info(2).map(drop);
                assert_eq!(no_queue, or_broken(Err(TaskError::OutOfRange)));
            }
            drop(task);
            life.driver.reset().await.unwrap();
            let name = format!("{stage:?}");
            match stage {
                Stage::Broken => life.end(After::Broken, &name).await,
                // What the driver has mapped is not there any more.
                Stage::Withdrawn => life.leave(&name).await,
                _ => life.end(After::Unharmed, &name).await,
            }
        });
        assert_eq!(world.platform.heap().outstanding(), 0, "{stage:?}");
    }
}
