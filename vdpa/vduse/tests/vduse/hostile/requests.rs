//! Requests that a task has.

use vdpa::ops::OpError;
use vdpa_vduse::{Task, TaskError};

use super::{is_broken, play, running};
use crate::driver::{ANSWER, Driver, REQUEST, UNTOUCHED};

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

/// Of two requests the task keeps the first and answers the second.
fn answer_late_one(driver: &mut Driver, task: &Task) {
    driver.offer(1);
    driver.offer(2);
    let _early = task.take(0).unwrap().unwrap();
    let late = task.take(0).unwrap().unwrap();
    task.complete(late).unwrap();
}

#[test]
fn a_task_that_keeps_an_early_request_and_answers_a_later_one_cannot_be_suspended() {
    play(async |world| {
        let (mut driver, task, _puppet) = running(world).await;
        answer_late_one(&mut driver, &task);
        assert_eq!(driver.claim.suspend().await, Err(OpError::Broken));
        is_broken(&driver, &task).await;
        driver.leave(world).await;
    });
}

#[test]
fn a_queue_whose_requests_the_task_keeps_is_not_stopped() {
    play(async |world| {
        let (mut driver, task, _puppet) = running(world).await;
        answer_late_one(&mut driver, &task);
        assert_eq!(driver.claim.stop_queue(0).await, Err(OpError::Broken));
        is_broken(&driver, &task).await;
        driver.leave(world).await;
    });
}
