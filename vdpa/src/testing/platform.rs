//! A kernel with one processor whose time stands still while anybody works.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::fmt;
use core::future::poll_fn;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use spin::Mutex;
use virtq::testing::HeapDma;
use virtq::{DmaAllocator, DmaBlock, DmaError};

use crate::Platform;
use crate::dma::IsolationUnit;
use crate::platform::{
    BoxFuture, Callback, ConnectedLine, InterruptLine, InterruptMessage, InterruptVector,
    IommuDomain, MapError, Mmio, NoLine, NoVector, PhysAddr,
};

use super::iommu::{FakeIommu, PAGE};
use super::mmio::Window;

/// A [`Platform`] for tests.
pub struct FakePlatform {
    heap: Arc<HeapDma>,
    iommu: Option<Arc<FakeIommu>>,
    mmio: Mutex<Vec<(PhysAddr, Arc<dyn Mmio>)>>,
    vectors: Arc<Vectors>,
    clock: Arc<Mutex<Clock>>,
    /// What happens when somebody looks at the clock.
    look: Mutex<Option<Look>>,
    tasks: Mutex<Vec<Task>>,
    memory_left: AtomicU64,
}

#[derive(Default)]
struct Clock {
    now: Duration,
    sleepers: Vec<(Duration, Waker)>,
}

type Look = Arc<dyn Fn(&FakePlatform) + Send + Sync>;

struct Task {
    name: String,
    future: BoxFuture<'static, ()>,
    alarm: Arc<Alarm>,
}

/// Whether somebody has something to do.
struct Alarm(AtomicBool);

impl Alarm {
    fn ringing() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl FakePlatform {
    /// A platform with as much memory and as many vectors as anybody wants.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_heap(HeapDma::new())
    }

    /// A platform with this memory, for instance [`HeapDma::limited`].
    #[must_use]
    pub fn with_heap(heap: Arc<HeapDma>) -> Arc<Self> {
        Self::with_parts(heap, None)
    }

    /// A platform with an IOMMU.
    #[must_use]
    pub fn with_iommu(iommu: &Arc<FakeIommu>) -> Arc<Self> {
        Self::with_parts(HeapDma::new(), Some(Arc::clone(iommu)))
    }

    fn with_parts(heap: Arc<HeapDma>, iommu: Option<Arc<FakeIommu>>) -> Arc<Self> {
        Arc::new(Self {
            heap,
            iommu,
            mmio: Mutex::default(),
            vectors: Arc::new(Vectors {
                limit: Mutex::new(usize::MAX),
                taken: Mutex::default(),
            }),
            clock: Arc::default(),
            look: Mutex::default(),
            tasks: Mutex::default(),
            memory_left: AtomicU64::new(u64::MAX),
        })
    }

    /// The memory, as a device reaches it.
    #[must_use]
    pub fn heap(&self) -> &Arc<HeapDma> {
        &self.heap
    }

    /// Puts device registers at an address.
    pub fn add_mmio(&self, base: PhysAddr, registers: Arc<dyn Mmio>) {
        self.mmio.lock().push((base, registers));
    }

    /// From now on simulated devices can have so many bytes.
    pub fn leave_memory(&self, bytes: u64) {
        self.memory_left.store(bytes, Ordering::Release);
    }

    /// From now on at most `limit` vectors can be taken at once.
    pub fn limit_vectors(&self, limit: usize) {
        *self.vectors.limit.lock() = limit;
    }

    /// How many vectors are taken.
    #[must_use]
    pub fn vectors_in_use(&self) -> usize {
        self.vectors.taken.lock().len()
    }

    /// Delivers an interrupt message. One that nobody has taken the vector of is lost.
    pub fn fire(&self, message: InterruptMessage) {
        let handler = self.vectors.taken.lock().get(&message.data).cloned();
        if let Some(handler) = handler
            && let Some(handler) = &*handler.lock()
        {
            handler.call();
        }
    }

    /// Raises an interrupt line. One that nobody has connected is not heard.
    pub fn raise_line(&self, number: u32) {
        self.fire(InterruptMessage {
            address: 0,
            data: LINES | number,
        });
    }

    /// The names of the tasks that have not ended.
    #[must_use]
    pub fn tasks(&self) -> Vec<String> {
        self.tasks
            .lock()
            .iter()
            .map(|task| task.name.clone())
            .collect()
    }

    /// Runs the tasks until all of them wait. The clock stands still.
    pub fn run_until_stalled(&self) {
        loop {
            let mut tasks = self.tasks.lock();
            let Some(index) = tasks.iter().position(|task| task.alarm.take()) else {
                return;
            };
            let mut task = tasks.remove(index);
            drop(tasks);
            let waker = Waker::from(Arc::clone(&task.alarm));
            if task
                .future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
            {
                self.tasks.lock().push(task);
            }
        }
    }

    /// Lets time pass and wakes who has slept long enough.
    pub fn advance(&self, duration: Duration) {
        let mut clock = self.clock.lock();
        clock.now += duration;
        let now = clock.now;
        let awake = clock
            .sleepers
            .extract_if(.., |(until, _)| *until <= now)
            .collect::<Vec<_>>();
        drop(clock);
        for (_, waker) in awake {
            waker.wake();
        }
    }

    /// From now on `look` is done whenever somebody looks at the clock, who then sees the time
    /// afterwards. So a device can work, and time pass, while a driver waits without sleeping.
    pub fn at_each_look(&self, look: impl Fn(&Self) + Send + Sync + 'static) {
        *self.look.lock() = Some(Arc::new(look));
    }

    /// What the clock shows. This is no look at it.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.clock.lock().now
    }

    /// Runs a future and the tasks until the future ends. Whenever all of them wait, the clock
    /// jumps to the moment that the next sleeper waits for.
    ///
    /// # Panics
    /// If all of them wait for something that never comes.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let alarm = Alarm::ringing();
        let waker = Waker::from(Arc::clone(&alarm));
        loop {
            if alarm.take()
                && let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return output;
            }
            self.run_until_stalled();
            if !alarm.0.load(Ordering::Acquire) {
                let next = self
                    .clock
                    .lock()
                    .sleepers
                    .iter()
                    .map(|(until, _)| *until)
                    .min();
                let next = next.expect("everything waits for something that never comes");
                self.advance(next.saturating_sub(self.time()));
            }
        }
    }
}

/// Memory that shares no page of the IOMMU.
struct WholePages(Arc<HeapDma>);

// SAFETY: blocks are those of the heap, for a layout that is at least what was asked for.
unsafe impl DmaAllocator for WholePages {
    fn allocate(&self, layout: Layout) -> Result<DmaBlock, DmaError> {
        let layout = layout.align_to(PAGE).map_err(|_| DmaError::BadSize)?;
        self.0.allocate(layout.pad_to_align())
    }

    unsafe fn deallocate(&self, block: DmaBlock) {
        // SAFETY: the caller vouches for it.
        unsafe { self.0.deallocate(block) };
    }
}

// SAFETY: everything it gives is a fake of its own.
unsafe impl Platform for FakePlatform {
    fn dma(&self) -> Arc<dyn DmaAllocator> {
        let heap = Arc::clone(&self.heap);
        match self.iommu {
            None => heap,
            Some(_) => Arc::new(WholePages(heap)),
        }
    }

    fn isolates(&self, unit: &IsolationUnit) -> bool {
        self.iommu.is_some() && unit.requester_id().is_some()
    }

    fn isolate(&self, unit: &Arc<IsolationUnit>) -> Option<Arc<dyn IommuDomain>> {
        self.iommu.as_ref()?.domain(unit)
    }

    unsafe fn map_mmio(&self, base: PhysAddr, len: u64) -> Result<Arc<dyn Mmio>, MapError> {
        let ranges = self.mmio.lock();
        let window = ranges.iter().find_map(|(start, registers)| {
            Window::new(registers, base.0.checked_sub(start.0)?, len)
        });
        window
            .map(|window| Arc::new(window) as Arc<dyn Mmio>)
            .ok_or(MapError)
    }

    fn allocate_vector(
        &self,
        _source: Option<&IsolationUnit>,
        handler: Callback,
    ) -> Result<Box<dyn InterruptVector>, NoVector> {
        let mut taken = self.vectors.taken.lock();
        if taken.len() >= *self.vectors.limit.lock() {
            return Err(NoVector);
        }
        let number = (0..)
            .find(|number| !taken.contains_key(number))
            .ok_or(NoVector)?;
        taken.insert(number, Arc::new(Mutex::new(Some(handler))));
        Ok(Box::new(Vector {
            number,
            vectors: Arc::clone(&self.vectors),
        }))
    }

    fn memory_left(&self) -> u64 {
        self.memory_left.load(Ordering::Acquire)
    }

    fn connect_line(
        &self,
        line: InterruptLine,
        handler: Callback,
    ) -> Result<Box<dyn ConnectedLine>, NoLine> {
        let number = LINES | line.number;
        let mut taken = self.vectors.taken.lock();
        if taken.len() >= *self.vectors.limit.lock() || taken.contains_key(&number) {
            return Err(NoLine);
        }
        taken.insert(number, Arc::new(Mutex::new(Some(handler))));
        Ok(Box::new(Vector {
            number,
            vectors: Arc::clone(&self.vectors),
        }))
    }

    fn now(&self) -> Duration {
        let look = self.look.lock().clone();
        if let Some(look) = look {
            look(self);
        }
        self.time()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let clock = Arc::clone(&self.clock);
        let until = clock.lock().now + duration;
        Box::pin(poll_fn(move |cx| {
            let mut clock = clock.lock();
            if clock.now >= until {
                return Poll::Ready(());
            }
            clock.sleepers.push((until, cx.waker().clone()));
            Poll::Pending
        }))
    }

    fn spawn(&self, name: &str, task: BoxFuture<'static, ()>) {
        let task = Task {
            name: name.to_owned(),
            future: task,
            alarm: Alarm::ringing(),
        };
        self.tasks.lock().push(task);
    }
}

impl fmt::Debug for FakePlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakePlatform")
            .field("now", &self.time())
            .field("tasks", &self.tasks())
            .field("vectors_in_use", &self.vectors_in_use())
            .finish_non_exhaustive()
    }
}

struct Vectors {
    limit: Mutex<usize>,
    /// Held while it runs, a handler is not taken away.
    taken: Mutex<BTreeMap<u32, Arc<Mutex<Option<Callback>>>>>,
}

/// What the number of a vector that stands for an interrupt line has set.
const LINES: u32 = 1 << 31;

/// A vector whose message carries its number.
struct Vector {
    number: u32,
    vectors: Arc<Vectors>,
}

// SAFETY: the message is a number that only the fake understands.
unsafe impl InterruptVector for Vector {
    fn message(&self) -> InterruptMessage {
        InterruptMessage {
            address: 0xfee0_0000,
            data: self.number,
        }
    }
}

impl ConnectedLine for Vector {}

impl Drop for Vector {
    fn drop(&mut self) {
        let handler = self.vectors.taken.lock().remove(&self.number);
        if let Some(handler) = handler {
            let handler = handler.lock().take();
            drop(handler);
        }
    }
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vector({})", self.number)
    }
}
