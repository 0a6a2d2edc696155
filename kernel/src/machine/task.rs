//! Tasks: futures that run on the executor of the processor, and what it does when all of them
//! wait.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::asm;
use core::pin::Pin;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Poll, ready};

use embassy_executor::raw::{AvailableTask, Executor, TaskStorage};
use embassy_executor::{SendSpawner, SpawnToken, Spawner};
use spin::Once;
use x86_64::instructions::interrupts;

use crate::machine::sync::IrqMutex;

/// A task, and its place for when it has ended.
struct Task<T: Future<Output = ()> + Unpin + 'static> {
    task: T,
    place: Slot<Self>,
}

type SendTask = Task<Pin<Box<dyn Future<Output = ()> + Send>>>;
type LocalTask = Task<Pin<Box<dyn Future<Output = ()>>>>;

static SEND_TASKS: Slots<SendTask> = Slots::new();
static LOCAL_TASKS: Slots<LocalTask> = Slots::new();
/// The executor's spawner for tasks that may be started from anywhere.
static SPAWNER: Once<SendSpawner> = Once::new();
/// Whether the executor has something to poll.
static PENDING: AtomicBool = AtomicBool::new(false);
/// How often the processor has halted.
static HALTS: AtomicU64 = AtomicU64::new(0);
/// Whether it counts instead, and what it has counted.
static COUNTS_IDLE: AtomicBool = AtomicBool::new(false);
static IDLE_INSTRUCTIONS: AtomicU64 = AtomicU64::new(0);

/// Starts a task. `name` is for people.
///
/// # Panics
/// If no task runs yet: the first one is the kernel's own.
pub fn spawn(name: &str, task: impl Future<Output = ()> + Send + 'static) {
    spawn_boxed(name, Box::pin(task));
}

/// The same for a task that is in a box already.
pub(crate) fn spawn_boxed(name: &str, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
    log::trace!("task {name} starts");
    let spawner = SPAWNER
        .get()
        .expect("only tasks start tasks, and the first one follows `run`");
    spawner.spawn(SEND_TASKS.place(|place| Task { task, place }));
}

/// Starts a task that stays on the processor of `spawner`. `name` is for people.
pub(crate) fn spawn_local(spawner: Spawner, name: &str, task: impl Future<Output = ()> + 'static) {
    spawn_boxed_local(spawner, name, Box::pin(task));
}

fn spawn_boxed_local(spawner: Spawner, name: &str, task: Pin<Box<dyn Future<Output = ()>>>) {
    log::trace!("task {name} starts");
    spawner.spawn(LOCAL_TASKS.place(|place| Task { task, place }));
}

/// How often the processor had nothing to do and halted.
pub(crate) fn halts() -> u64 {
    HALTS.load(Ordering::Relaxed)
}

/// From now on the processor does not halt when it has nothing to do, but counts the instructions
/// that it spends waiting.
pub(crate) fn count_idle() {
    COUNTS_IDLE.store(true, Ordering::Relaxed);
}

/// How many instructions the processor has spent waiting since [`count_idle`].
pub(crate) fn idle_instructions() -> u64 {
    IDLE_INSTRUCTIONS.load(Ordering::Relaxed)
}

/// Runs tasks for ever, beginning with the one that `first` makes. Without a task to run the
/// processor halts until the next interrupt.
pub(crate) fn run<F>(first: impl FnOnce(Spawner) -> F) -> !
where
    F: Future<Output = ()> + 'static,
{
    let executor: &'static Executor = Box::leak(Box::new(Executor::new(null_mut())));
    let spawner = executor.spawner();
    SPAWNER.call_once(|| spawner.make_send());
    spawn_local(spawner, "main", first(spawner));
    loop {
        // SAFETY: this is the only call, so it is not made while another one runs.
        unsafe { executor.poll() };
        interrupts::disable();
        if PENDING.swap(false, Ordering::Acquire) {
            interrupts::enable();
        } else if COUNTS_IDLE.load(Ordering::Relaxed) {
            interrupts::enable();
            IDLE_INSTRUCTIONS.fetch_add(spin(), Ordering::Relaxed);
        } else {
            HALTS.fetch_add(1, Ordering::Relaxed);
            // The processor takes no interrupt between the two instructions, so that a handler that
            // makes a task ready always ends the halt.
            interrupts::enable_and_hlt();
        }
    }
}

/// Waits until there is something to poll, and returns how many instructions that took; the
/// handlers of interrupts are not among them.
fn spin() -> u64 {
    /// Those of one round.
    const INSTRUCTIONS: u64 = 4;
    let mut rounds = 0u64;
    // SAFETY: the loop reads a byte of a static and changes one register.
    unsafe {
        asm!(
            "2:",
            "inc {rounds}",
            "pause",
            "cmp byte ptr [{pending}], 0",
            "je 2b",
            rounds = inout(reg) rounds,
            pending = in(reg) PENDING.as_ptr(),
            options(nostack, readonly),
        );
    }
    rounds * INSTRUCTIONS
}

/// Called by the executor, from any context, when there is something to poll.
#[unsafe(export_name = "__pender")]
fn pender(_context: *mut ()) {
    PENDING.store(true, Ordering::Release);
}

impl<T: Future<Output = ()> + Unpin> Future for Task<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.get_mut();
        ready!(Pin::new(&mut task.task).poll(cx));
        task.place.give_back();
        Poll::Ready(())
    }
}

/// Places for tasks. The executor wants them to live for ever, so a place is used again after its
/// task has ended: there are never more of them than there were tasks at once.
struct Slots<F: Future + 'static> {
    free: IrqMutex<Vec<&'static TaskStorage<F>>>,
}

/// A place in use, for the moment when it is not any more.
struct Slot<F: Future + 'static> {
    slots: &'static Slots<F>,
    storage: &'static TaskStorage<F>,
}

impl<F: Future + 'static> Slots<F> {
    const fn new() -> Self {
        Self {
            free: IrqMutex::new(Vec::new()),
        }
    }

    /// Puts the task that `task` makes into a free place, or into a new one.
    fn place(&'static self, task: impl FnOnce(Slot<F>) -> F) -> SpawnToken<F> {
        let (storage, claimed) = self.claim_free().unwrap_or_else(|| {
            let storage: &'static TaskStorage<F> = Box::leak(Box::new(TaskStorage::new()));
            (
                storage,
                AvailableTask::claim(storage).expect("a new place holds no task"),
            )
        });
        claimed.initialize(|| {
            task(Slot {
                slots: self,
                storage,
            })
        })
    }

    /// A free place. One whose task has only just ended may still be in the executor's queue, and
    /// is left for later.
    fn claim_free(&self) -> Option<(&'static TaskStorage<F>, AvailableTask<F>)> {
        self.free.with(|free| {
            free.iter()
                .enumerate()
                .find_map(|(index, storage)| {
                    AvailableTask::claim(storage).map(|claimed| (index, claimed))
                })
                .map(|(index, claimed)| (free.swap_remove(index), claimed))
        })
    }
}

impl<F: Future + 'static> Slot<F> {
    fn give_back(&self) {
        self.slots.free.with(|free| free.push(self.storage));
    }
}
