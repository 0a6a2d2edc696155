//! Who may be interrupted, and when.

use vdpa_vduse::TaskError;

use super::{play, running};

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
