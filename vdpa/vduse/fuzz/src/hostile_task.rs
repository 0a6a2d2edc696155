//! A hostile task behind a driver that relies on its device. No request may be lost, or be with the
//! task twice, or be answered twice, and whatever is asked of the task, nobody waits for ever.

use std::time::Duration;

use vdpa::Platform;
use vdpa_vduse::TaskError;
use virtio::DeviceStatus;
use virtq::RingFeatures;

use super::books::Books;
use super::driver::{Driver, QUEUES};
use super::input::Input;
use super::task::{HostileTask, Watch};
use super::world::World;

/// The most messages that one step of the driver takes, and one to spare.
const MESSAGES: u32 = 8;

/// Runs one program.
///
/// # Panics
/// If the device breaks a promise to its driver, or something is left.
pub fn hostile_task(data: &[u8]) {
    let mut input = Input::new(data);
    let world = World::new();
    let task = world.create(&mut input, QUEUES, 1);
    let mut trial = Trial {
        task: HostileTask::new(&world, task),
        driver: Driver::new(&world),
        world: &world,
        books: Books::default(),
        quiet_since: None,
    };
    trial.start(&mut input);
    while !input.is_empty() {
        trial.step(&mut input);
        trial.look();
    }
    trial.finish();
    trial.leave();
    world.check_nothing_is_left();
}

struct Trial<'w> {
    world: &'w World,
    driver: Driver,
    task: HostileTask<'w>,
    books: Books,
    /// How many interrupts there had been when the device was suspended.
    quiet_since: Option<u64>,
}

impl Trial<'_> {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(32) {
            0..9 => {
                let queue = u16::from(input.flag());
                self.driver.offer(queue, &mut self.books);
            }
            9..24 => self.task.act(input, &mut self.books),
            24 => self.suspend(input),
            25 => self.resume(input),
            26 => self.stop_queue(input),
            27 => _ = self.ask(input, async |driver| driver.claim.start_queue(0).await),
            28 => {
                let queue = u16::from(input.flag());
                _ = self.ask(input, async |driver| driver.claim.queue_state(queue).await);
            }
            29 => {
                let time = Duration::from_millis(20 * u64::from(input.byte()));
                self.world
                    .platform
                    .block_on(self.world.platform.sleep(time));
            }
            30 => self.reset(input),
            _ => {
                if input.flag() {
                    self.reset(input);
                }
                self.start(input);
            }
        }
    }

    /// The driver does something, while the task answers.
    fn ask<T>(&mut self, input: &mut Input<'_>, act: impl AsyncFnOnce(&mut Driver) -> T) -> T {
        let acting = act(&mut self.driver);
        self.task.serve(acting, MESSAGES, input, &mut self.books)
    }

    fn start(&mut self, input: &mut Input<'_>) {
        if self.driver.is_started() {
            return;
        }
        self.reset(input);
        let ring = RingFeatures::NONE
            .with_packed(input.flag())
            .with_event_idx(input.flag())
            .with_indirect(input.flag())
            .with_in_order(input.flag());
        let started = self.ask(input, async |driver| driver.start(ring).await);
        if started.is_err() {
            self.reset(input);
        }
    }

    fn reset(&mut self, input: &mut Input<'_>) {
        self.quiet_since = None;
        self.ask(input, async |driver| driver.reset().await);
        self.books.clear();
    }

    fn suspend(&mut self, input: &mut Input<'_>) {
        let suspended = self.ask(input, async |driver| driver.claim.suspend().await);
        if suspended.is_ok() {
            self.books.taken_back(None);
            self.quiet_since = Some(self.driver.interrupts());
        }
    }

    fn resume(&mut self, input: &mut Input<'_>) {
        // From the answer on it may.
        self.look();
        self.quiet_since = None;
        let resumed = self.ask(input, async |driver| driver.claim.resume().await);
        if resumed.is_err() && self.driver.claim.is_suspended() == Ok(true) {
            self.quiet_since = Some(self.driver.interrupts());
        }
    }

    fn stop_queue(&mut self, input: &mut Input<'_>) {
        let stopped = self.ask(input, async |driver| driver.claim.stop_queue(0).await);
        if stopped.is_ok() {
            self.books.taken_back(Some(0));
        }
    }

    fn look(&mut self) {
        self.driver.collect(&mut self.books);
        if let Some(before) = self.quiet_since
            && !self.is_broken()
        {
            let now = self.driver.interrupts();
            assert_eq!(now, before, "a suspended device interrupts its driver");
        }
    }

    fn is_broken(&self) -> bool {
        let status = self.driver.claim.status().expect("it is on the bus");
        status.contains(DeviceStatus::DEVICE_NEEDS_RESET)
    }

    /// A task that does its work gets all that was left, and the driver everything back; and so it
    /// is after a reset.
    fn finish(&mut self) {
        let mut honest = Input::new(&[]);
        self.task.die(&mut self.books);
        let task_broken = self.task.alive().receive() == Err(TaskError::Broken);
        assert!(
            task_broken || !self.is_broken(),
            "this driver breaks nothing"
        );
        if task_broken {
            return;
        }
        if self.driver.is_started() {
            // Also if nobody knows whether it is suspended.
            self.resume(&mut honest);
            for queue in 0..QUEUES {
                if self.driver.claim.queue_ready(queue) == Ok(false) {
                    let started = self.ask(&mut honest, async |driver| {
                        driver.claim.start_queue(queue).await
                    });
                    started.expect("nobody objects");
                }
            }
            self.drain();
            self.reset(&mut honest);
        }
        self.start(&mut honest);
        assert!(self.driver.is_started(), "nobody objects");
        for queue in 0..QUEUES {
            self.driver.offer(queue, &mut self.books);
        }
        self.drain();
    }

    fn drain(&mut self) {
        let task = self.task.alive();
        for queue in 0..QUEUES {
            while let Some(job) = task.take(queue).expect("the device runs") {
                self.books.taken(task, job);
                let told = task.complete(job);
                assert_eq!(told, Ok(()));
                self.books.answered(job, told);
            }
            task.flush(queue).expect("the device runs");
        }
        self.driver.collect(&mut self.books);
        assert!(self.books.is_empty(), "requests are lost");
    }

    fn leave(self) {
        let Self {
            world,
            driver,
            task,
            ..
        } = self;
        drop(task);
        world.platform.block_on(driver.leave(world));
    }
}
