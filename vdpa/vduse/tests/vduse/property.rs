//! Whatever a driver and a hostile task do, in whatever order: nobody waits longer than a deadline,
//! the driver's ring stays whole, each request is answered once at most, and in the end everything
//! is given back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use vdpa_vduse::protocol::{Outcome, Response};
use vdpa_vduse::{Job, Options, Task};

use crate::driver::{ANSWER, Driver, Manner, Puppet, UNTOUCHED, create};
use crate::world::{DEADLINE, World};

/// Who does what next.
#[derive(Clone, Copy, Debug)]
enum Act {
    // The driver.
    Reset,
    Start {
        packed: bool,
    },
    Suspend,
    Resume,
    StopQueue,
    StartQueue,
    QueueState,
    Offer,
    Settle,
    // The task.
    Be(Manner),
    Take,
    /// A request, of those that the task has had, gone or not.
    Read(usize, u64, usize),
    Write(usize, u64, usize),
    Complete(usize),
    Flush(u16),
    Interrupt(u16),
    ConfigInterrupt,
    Config(u32, usize),
    Reply(u32),
    /// It dies, and the next one is there at once.
    Restart,
}

fn acts() -> impl Strategy<Value = Act> {
    let manner = prop_oneof![
        8 => Just(Manner::Honest),
        2 => Just(Manner::Twice),
        1 => Just(Manner::Refusing),
        1 => Just(Manner::Silent),
        1 => Just(Manner::Lost),
    ];
    let place = || prop_oneof![4 => 0..80_u64, 1 => Just(u64::MAX)];
    prop_oneof![
        1 => Just(Act::Reset),
        4 => any::<bool>().prop_map(|packed| Act::Start { packed }),
        1 => Just(Act::Suspend),
        2 => Just(Act::Resume),
        1 => Just(Act::StopQueue),
        2 => Just(Act::StartQueue),
        1 => Just(Act::QueueState),
        12 => Just(Act::Offer),
        1 => Just(Act::Settle),
        2 => manner.prop_map(Act::Be),
        12 => Just(Act::Take),
        4 => (0..8_usize, place(), 0..80_usize).prop_map(|(job, at, len)| Act::Read(job, at, len)),
        8 => (0..8_usize, place(), 0..80_usize).prop_map(|(job, at, len)| Act::Write(job, at, len)),
        10 => (0..8_usize).prop_map(Act::Complete),
        6 => (0..4_u16).prop_map(Act::Flush),
        1 => (0..4_u16).prop_map(Act::Interrupt),
        1 => Just(Act::ConfigInterrupt),
        1 => (0..16_u32, 0..16_usize).prop_map(|(at, len)| Act::Config(at, len)),
        1 => (0..20_u32).prop_map(Act::Reply),
        1 => Just(Act::Restart),
    ]
}

struct Game<'w> {
    world: &'w World,
    driver: Driver,
    task: Option<Arc<Task>>,
    puppet: Puppet,
    /// The latest requests that the task has had.
    jobs: Vec<Job>,
    /// How many requests of each number are with the device.
    open: BTreeMap<u8, u32>,
    number: u8,
    started: bool,
}

impl Game<'_> {
    fn task(&self) -> &Task {
        self.task.as_ref().unwrap()
    }

    fn job(&self, index: usize) -> Option<Job> {
        self.jobs.iter().rev().nth(index).copied()
    }

    async fn play(&mut self, act: Act) {
        let before = self.world.kernel.now();
        self.act(act).await;
        let waited = self.world.kernel.now() - before;
        // A start is several messages; the first that is not answered is the last.
        assert!(
            waited <= DEADLINE + Duration::from_millis(50),
            "{act:?}: {waited:?}"
        );
        self.collect();
    }

    async fn act(&mut self, act: Act) {
        let claim = Arc::clone(&self.driver.claim);
        match act {
            Act::Reset => {
                self.driver.reset().await.unwrap();
                self.open.clear();
                self.started = false;
            }
            Act::Start { packed } if !self.started => {
                self.driver.reset().await.unwrap();
                self.started = self.driver.start(packed).await.is_ok();
                if !self.started {
                    self.driver.reset().await.unwrap();
                }
            }
            Act::Start { .. } => {}
            Act::Suspend => _ = claim.suspend().await,
            Act::Resume => _ = claim.resume().await,
            Act::StopQueue => _ = claim.stop_queue(0).await,
            Act::StartQueue => _ = claim.start_queue(0).await,
            Act::QueueState => _ = claim.queue_state(0).await,
            Act::Settle => self.driver.attachment.settle(0).await.unwrap(),
            Act::Offer => {
                if self.started && self.driver.offer(self.number) {
                    *self.open.entry(self.number).or_default() += 1;
                    self.number = self.number.wrapping_add(1) % 100;
                }
            }
            Act::Be(manner) => self.puppet.be(manner),
            Act::Take => {
                if let Ok(Some(job)) = self.task().take(0) {
                    let mut first = [0; 1];
                    if self.task().read(job, 0, &mut first) == Ok(1) {
                        let open = self.open.get(&first[0]).copied().unwrap_or(0);
                        assert!(open > 0, "request {} was answered before", first[0]);
                        // So that the answer says which request it is to.
                        let _ = self.task().write(job, 0, &first);
                    }
                    self.jobs.push(job);
                }
            }
            Act::Read(job, at, len) => {
                if let Some(job) = self.job(job) {
                    let _ = self.task().read(job, at, &mut vec![0; len]);
                }
            }
            Act::Write(job, at, len) => {
                if let Some(job) = self.job(job) {
                    let _ = self
                        .task()
                        .write(job, at.saturating_add(1), &vec![0xcc; len]);
                }
            }
            Act::Complete(job) => {
                if let Some(job) = self.job(job) {
                    let _ = self.task().complete(job);
                }
            }
            Act::Flush(queue) => _ = self.task().flush(queue),
            Act::Interrupt(queue) => _ = self.task().inject_interrupt(queue),
            Act::ConfigInterrupt => _ = self.task().inject_config_interrupt(),
            Act::Config(at, len) => _ = self.task().update_config(at, &vec![1; len]),
            Act::Reply(id) => {
                let _ = self
                    .task()
                    .reply(&Response::new(id, Outcome::Failed).encode());
            }
            Act::Restart => {
                self.puppet.stop();
                self.world.kernel.sleep(Duration::from_millis(1)).await;
                drop(self.task.take());
                let task = Arc::new(self.world.control.open("device").unwrap());
                self.puppet = Puppet::start(self.world, &task);
                self.task = Some(task);
            }
        }
    }

    /// What comes back was open, and the driver can rely on what it is told of it.
    fn collect(&mut self) {
        while let Some((bytes, written)) = self.driver.answered() {
            assert!(written <= ANSWER);
            assert!(bytes[..written].iter().all(|byte| *byte != UNTOUCHED));
            if written > 0 {
                let open = self.open.get_mut(&bytes[0]);
                let open = open.filter(|open| **open > 0);
                *open.expect("a request is answered once") -= 1;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_hostile_task_harms_nobody(acts in proptest::collection::vec(acts(), 1..80), in_flight in 1..9_u16) {
        let world = World::new();
        world.platform.block_on(async {
            let task = create(&world, Options { in_flight, ..Options::default() });
            let puppet = Puppet::start(&world, &task);
            let driver = Driver::take(&world).await;
            let mut game = Game {
                world: &world,
                driver,
                task: Some(task),
                puppet,
                jobs: Vec::new(),
                open: BTreeMap::new(),
                number: 0,
                started: false,
            };
            for act in acts {
                game.play(act).await;
            }
            game.puppet.stop();
            drop(game.task);
            let before = world.kernel.now();
            game.driver.leave(&world).await;
            assert!(world.kernel.now() - before <= 2 * DEADLINE);
            world.kernel.sleep(2 * DEADLINE).await;
            world.control.destroy("device").unwrap();
        });
        assert_eq!(world.platform.heap().outstanding(), 0);
        assert_eq!(world.platform.tasks(), [""; 0]);
    }
}
