//! The task: what it does by itself, and how it answers.

use std::pin::pin;
use std::time::Duration;

use embassy_futures::select::{Either, select};
use vdpa::Platform;
use vdpa_vduse::protocol::{Message, Outcome, RawState, Request, Response};
use vdpa_vduse::{Job, Task, TaskError};

use super::input::Input;
use super::world::{CONFIG, DEADLINE, NAME, World, setup};

/// Requests that it remembers, the device's or not any more.
const JOBS_MAX: usize = 24;

/// Notices what happens to requests.
pub trait Watch {
    /// The task has got a request.
    fn taken(&mut self, task: &Task, job: Job);
    /// It has written so many bytes of its answer.
    fn written(&mut self, job: Job, offset: u64, len: usize);
    /// It has answered, or tried to.
    fn answered(&mut self, job: Job, told: Result<(), TaskError>);
    /// It is gone.
    fn died(&mut self);
}

/// Of a driver that nobody can rely on.
impl Watch for () {
    fn taken(&mut self, _task: &Task, _job: Job) {}
    fn written(&mut self, _job: Job, _offset: u64, _len: usize) {}
    fn answered(&mut self, _job: Job, _told: Result<(), TaskError>) {}
    fn died(&mut self) {}
}

/// A task, which may be dead.
pub struct HostileTask<'w> {
    world: &'w World,
    task: Option<Task>,
    jobs: Vec<Job>,
}

impl<'w> HostileTask<'w> {
    pub fn new(world: &'w World, task: Task) -> Self {
        Self {
            world,
            task: Some(task),
            jobs: Vec::new(),
        }
    }

    /// The task, or the next one.
    pub fn alive(&mut self) -> &Task {
        self.task
            .get_or_insert_with(|| self.world.control.open(NAME).expect("it is nobody's"))
    }

    pub fn die(&mut self, watch: &mut impl Watch) {
        if self.task.take().is_some() {
            watch.died();
        }
    }

    /// Does something with the device, and answers the messages meanwhile as the input wants.
    ///
    /// # Panics
    /// If that takes longer than so many messages.
    pub fn serve<T>(
        &mut self,
        act: impl Future<Output = T>,
        messages: u32,
        input: &mut Input<'_>,
        watch: &mut impl Watch,
    ) -> T {
        let platform = &self.world.platform;
        let before = platform.now();
        let (acting, answering) = (pin!(act), pin!(self.answer(input, watch)));
        let Either::First(done) = platform.block_on(select(acting, answering)) else {
            unreachable!("a task that answers does not end");
        };
        let waited = platform.now() - before;
        assert!(waited <= messages * DEADLINE, "{waited:?}");
        done
    }

    async fn answer(&mut self, input: &mut Input<'_>, watch: &mut impl Watch) {
        loop {
            self.alive();
            while let Some(bytes) = self.alive().receive().ok().flatten() {
                let message = Message::decode(&bytes).expect("the kernel keeps to the protocol");
                if !self.answer_one(message, input, watch) {
                    self.die(watch);
                    let pause = Duration::from_millis(20 * u64::from(input.byte()));
                    self.world.platform.sleep(pause).await;
                    self.alive();
                }
            }
            self.alive().wait().await;
        }
    }

    /// False, if it dies of it.
    fn answer_one(
        &mut self,
        message: Message,
        input: &mut Input<'_>,
        watch: &mut impl Watch,
    ) -> bool {
        let mut response = self.honest(message);
        match input.below(20) {
            0..8 => {}
            8 => response.outcome = Outcome::Failed,
            9 => return true,
            10 => _ = self.alive().reply(&response.encode()),
            11 => response.id = response.id.wrapping_add(u32::from(input.byte())),
            12 => {
                let mut bytes = response.encode();
                bytes[input.below(bytes.len())] ^= input.byte();
                let _ = self.alive().reply(&bytes);
            }
            13 => response.state = RawState::of_split(input.u16()),
            14 => response.queue = u32::from(input.byte()),
            15 => return false,
            16 => {
                let _ = self.alive().reply(&response.encode());
                return false;
            }
            _ => (0..input.below(8)).for_each(|_| self.act(input, watch)),
        }
        let told = self.alive().reply(&response.encode());
        assert!(
            told.is_ok() || self.alive().reply(&response.encode()).is_err(),
            "what was refused is accepted the second time"
        );
        true
    }

    fn honest(&mut self, message: Message) -> Response {
        let mut response = Response::new(message.id, Outcome::Done);
        if let Request::GetQueueState { queue } = message.request {
            let info = self.alive().queue_info(queue as u16);
            response.queue = queue;
            response.state = info.map(|info| info.state).unwrap_or_default();
        }
        response
    }

    /// Something that it does by itself.
    pub fn act(&mut self, input: &mut Input<'_>, watch: &mut impl Watch) {
        let queue = match input.below(16) {
            0 => input.u16(),
            small => small as u16 % 2,
        };
        // A late one, or one that it does not have any more.
        let which = usize::from(input.byte()).checked_rem(self.jobs.len());
        let job = which.and_then(|which| self.jobs.iter().rev().nth(which).copied());
        let task = self.alive();
        match (input.below(16), job) {
            (0..4, _) => {
                if let Ok(Some(job)) = task.take(queue) {
                    watch.taken(task, job);
                    self.jobs.push(job);
                    let surplus = self.jobs.len().saturating_sub(JOBS_MAX);
                    self.jobs.drain(..surplus);
                }
            }
            (4..6, Some(job)) => {
                let offset = offset(input);
                let bytes = vec![0xcc; usize::from(input.byte())];
                if let Ok(done) = task.write(job, offset, &bytes) {
                    assert!(done <= bytes.len());
                    watch.written(job, offset, done);
                }
            }
            (6, Some(job)) => {
                let mut bytes = vec![0; usize::from(input.byte())];
                if let Ok(done) = task.read(job, offset(input), &mut bytes) {
                    assert!(done as u64 <= job.readable());
                }
            }
            (7..10, Some(job)) => {
                let told = task.complete(job);
                watch.answered(job, told);
            }
            (10 | 11, _) => _ = task.flush(queue),
            (12, _) => _ = task.inject_interrupt(queue),
            (13, _) => match input.below(4) {
                0 => _ = task.inject_config_interrupt(),
                1 => {
                    let bytes = vec![input.byte(); input.below(2 * CONFIG)];
                    let _ = task.update_config(small(input), &bytes);
                }
                2 => {
                    let set_up = task.set_up_queue(setup(queue, 0));
                    assert!(set_up.is_err(), "a queue of a device on the bus is set up");
                }
                _ => _ = task.queue_info(queue),
            },
            (14, _) => {
                let outcome = [Outcome::Done, Outcome::Failed][input.below(2)];
                let response = Response::new(u32::from(input.byte()), outcome);
                let _ = task.reply(&response.encode());
            }
            (15, _) => self.die(watch),
            _ => {}
        }
    }
}

/// Behind the number that says which request it is.
fn offset(input: &mut Input) -> u64 {
    match input.below(16) {
        0 => input.u64().max(8),
        _ => 8 + u64::from(input.byte()) % 72,
    }
}

fn small(input: &mut Input) -> u32 {
    match input.below(8) {
        0 => input.u32(),
        _ => input.below(CONFIG + 2) as u32,
    }
}
