//! A task that does everything as it should but for one message.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embassy_futures::select::{Either, select};
use embassy_futures::yield_now;
use vdpa::Platform;
use vdpa_vduse::protocol::{Message, Outcome, RawState, Request, Response};
use vdpa_vduse::{Control, Task, TaskDevice, Turn};
use virtio::DeviceStatus;
use virtq::Event;

use crate::world::{DEADLINE, World};

/// How a message goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is read, and never answered.
    Silent,
    /// The answer comes after the deadline.
    Late,
    /// The answer is no.
    Refusal,
    /// The answer says that queues are elsewhere.
    Lie,
    /// The answer comes twice.
    Twice,
    /// An answer to nobody comes first.
    OtherFirst,
    /// Bytes that are no answer come first.
    GarbageFirst,
    /// They are all that comes.
    OnlyGarbage,
    /// The task dies with it, and the next one comes a little later.
    NextTask,
    /// The task dies with it, and no other comes.
    Death,
    /// Whoever has asked loses patience.
    GivenUp,
}

impl Fault {
    pub const ALL: [Self; 11] = [
        Self::Silent,
        Self::Late,
        Self::Refusal,
        Self::Lie,
        Self::Twice,
        Self::OtherFirst,
        Self::GarbageFirst,
        Self::OnlyGarbage,
        Self::NextTask,
        Self::Death,
        Self::GivenUp,
    ];
}

/// At which message what happens.
pub type Plan = Option<(usize, Fault)>;

pub struct Saboteur {
    shared: Arc<Shared>,
}

struct Shared {
    control: Arc<Control>,
    kernel: Arc<dyn Platform>,
    name: &'static str,
    task: Mutex<Option<Arc<Task>>>,
    seen: Mutex<Vec<Request>>,
    plan: Mutex<Plan>,
    /// A message was given up.
    given_up: Event,
    stop: Event,
    silent: AtomicBool,
    struck: AtomicBool,
}

impl Saboteur {
    pub fn start(world: &World, task: Arc<Task>, plan: Plan) -> Self {
        let shared = Self::shared(world, "device", Some(task), plan);
        let running = Arc::clone(&shared);
        let answering = async move {
            select(running.stop.wait(), running.answer()).await;
        };
        world.kernel.spawn("saboteur", Box::pin(answering));
        Self { shared }
    }

    /// Serves a device, and dies when it has read the message of this number.
    pub fn serve(
        world: &World,
        task: Task,
        number: usize,
        mut device: Box<dyn TaskDevice>,
    ) -> Self {
        let shared = Self::shared(world, "disk", None, None);
        let running = Arc::clone(&shared);
        let serving = async move {
            let living = running.live(&task, number, &mut *device);
            select(running.stop.wait(), living).await;
        };
        world.kernel.spawn("disk", Box::pin(serving));
        Self { shared }
    }

    fn shared(
        world: &World,
        name: &'static str,
        task: Option<Arc<Task>>,
        plan: Plan,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            control: Arc::clone(&world.control),
            kernel: Arc::clone(&world.kernel),
            name,
            task: Mutex::new(task),
            seen: Mutex::default(),
            plan: Mutex::new(plan),
            given_up: Event::new(),
            stop: Event::new(),
            silent: AtomicBool::new(false),
            struck: AtomicBool::new(false),
        })
    }

    /// The task, if it lives.
    pub fn task(&self) -> Option<Arc<Task>> {
        self.shared.task.lock().unwrap().clone()
    }

    /// The task, or the next one.
    pub fn revive(&self) -> Arc<Task> {
        *self.shared.plan.lock().unwrap() = None;
        self.shared.alive()
    }

    pub fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// It answers nothing any more.
    pub fn fall_silent(&self) {
        self.shared.silent.store(true, Ordering::Relaxed);
    }

    pub fn has_struck(&self) -> bool {
        self.shared.struck.load(Ordering::Relaxed)
    }

    /// Lets the task go.
    pub fn stop(&self) {
        self.shared.stop.raise();
        self.shared.task.lock().unwrap().take();
    }

    /// Waits for something, unless the plan is that it is given up.
    pub async fn unless_given_up<T>(&self, act: impl Future<Output = T>) -> Option<T> {
        match select(act, self.shared.given_up.wait()).await {
            Either::First(done) => Some(done),
            Either::Second(()) => None,
        }
    }
}

impl Shared {
    fn alive(&self) -> Arc<Task> {
        let mut task = self.task.lock().unwrap();
        let next = || Arc::new(self.control.open(self.name).expect("it is nobody's"));
        Arc::clone(task.get_or_insert_with(next))
    }

    fn die(&self) {
        drop(self.task.lock().unwrap().take());
    }

    /// Serves until the message of this number comes.
    async fn live(&self, task: &Task, number: usize, device: &mut dyn TaskDevice) {
        let (mut read, mut started) = (0, false);
        loop {
            while let Ok(Some(bytes)) = task.receive() {
                if read == number {
                    self.struck.store(true, Ordering::Relaxed);
                    return;
                }
                read += 1;
                let message = Message::decode(&bytes).unwrap();
                if let Request::SetStatus(status) = message.request {
                    started = status & DeviceStatus::DRIVER_OK.bits() != 0;
                }
                let response = honest(task, message);
                let _ = task.reply(&response.encode());
            }
            if started && device.serve(task) == Ok(Turn::More) {
                yield_now().await;
            } else {
                task.wait().await;
            }
        }
    }

    async fn answer(&self) {
        loop {
            let task = self.alive();
            let bytes = match task.receive() {
                Ok(Some(bytes)) => bytes,
                Ok(None) => {
                    task.wait().await;
                    continue;
                }
                Err(_) => return,
            };
            drop(task);
            if self.silent.load(Ordering::Relaxed) {
                continue;
            }
            let message = Message::decode(&bytes).unwrap();
            let number = self.seen.lock().unwrap().len();
            self.seen.lock().unwrap().push(message.request);
            let plan = *self.plan.lock().unwrap();
            match plan {
                Some((at, fault)) if at == number => self.strike(message, fault).await,
                _ => _ = self.alive().reply(&honest(&self.alive(), message).encode()),
            }
        }
    }

    async fn strike(&self, message: Message, fault: Fault) {
        let mut response = honest(&self.alive(), message);
        let task = self.alive();
        match fault {
            Fault::Silent => return,
            Fault::Late => {
                drop(task);
                self.kernel.sleep(DEADLINE * 2).await;
                let late = self.alive().reply(&response.encode());
                assert!(late.is_err(), "{message:?}: nobody waits so long");
                return;
            }
            Fault::Refusal => response.outcome = Outcome::Failed,
            Fault::Lie => response.state = RawState::of_split(response.state.split() ^ 1),
            Fault::Twice => _ = task.reply(&response.encode()),
            Fault::OtherFirst => {
                let other = Response::new(message.id.wrapping_add(1), Outcome::Failed);
                assert!(task.reply(&other.encode()).is_err());
            }
            Fault::GarbageFirst | Fault::OnlyGarbage => {
                assert!(task.reply(&[0xff; 152]).is_err());
                assert!(task.reply(&response.encode()[1..]).is_err());
                if fault == Fault::OnlyGarbage {
                    return;
                }
            }
            Fault::NextTask => {
                drop(task);
                self.die();
                self.kernel.sleep(Duration::from_millis(10)).await;
                // It reads the message again.
                self.seen.lock().unwrap().pop();
                *self.plan.lock().unwrap() = None;
                return;
            }
            Fault::Death => {
                drop(task);
                self.die();
                return self.kernel.sleep(Duration::from_secs(1 << 20)).await;
            }
            Fault::GivenUp => {
                self.given_up.raise();
                self.kernel.sleep(Duration::from_millis(1)).await;
                assert!(task.reply(&response.encode()).is_err(), "nobody waits");
                return;
            }
        }
        let told = task.reply(&response.encode());
        assert_eq!(told.is_err(), fault == Fault::Twice, "{message:?}");
    }
}

fn honest(task: &Task, message: Message) -> Response {
    let mut response = Response::new(message.id, Outcome::Done);
    if let Request::GetQueueState { queue } = message.request {
        response.queue = queue;
        response.state = task.queue_info(queue as u16).unwrap().state;
    }
    response
}
