//! Devices and drivers that write down what happens to them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use vdpa::Node;
use vdpa::bus::{Bound, Bus, BusDevice, ByBus, Claim, Driver, Exactness, ProbeError};
use vdpa::ids::IdGuard;
use vdpa::platform::BoxFuture;
use vdpa::power::PowerError;
use vdpa::testing::FakePlatform;

/// What happened, in order.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    pub fn write(&self, entry: String) {
        self.0.lock().expect("no test panics here").push(entry);
    }

    /// What happened since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no test panics here"))
    }
}

pub type ToyBus = Bus<Toy>;

/// A device with a kind and, if the test wants, a number.
pub struct Toy {
    node: Arc<Node>,
    kind: String,
    journal: Journal,
    _id: Option<IdGuard>,
}

impl Toy {
    /// A device `<kind>.<id>`.
    pub fn numbered(bus: &ToyBus, parent: &Arc<Node>, kind: &str, journal: &Journal) -> Arc<Self> {
        let id = bus.allocate_id().expect("few devices");
        let name = format!("{kind}.{}", id.number());
        Self::make(parent, &name, kind, journal, Some(id))
    }

    /// A device whose name is its kind.
    pub fn named(parent: &Arc<Node>, name: &str, journal: &Journal) -> Arc<Self> {
        Self::make(parent, name, name, journal, None)
    }

    fn make(
        parent: &Arc<Node>,
        name: &str,
        kind: &str,
        journal: &Journal,
        id: Option<IdGuard>,
    ) -> Arc<Self> {
        let node = Node::child(parent, name);
        let (kind, journal) = (kind.to_owned(), journal.clone());
        Arc::new(Self {
            node,
            kind,
            journal,
            _id: id,
        })
    }

    pub fn name(&self) -> &str {
        self.node.name()
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        self.journal.write(format!("free {}", self.name()));
    }
}

/// A row: a kind or any, and a number for the driver.
#[derive(Debug)]
pub struct ToyId {
    pub kind: Option<&'static str>,
    pub data: u64,
}

impl BusDevice for Toy {
    type Id = ToyId;

    fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn match_name(&self) -> &str {
        &self.kind
    }

    fn matches(&self, id: &ToyId) -> bool {
        id.kind.is_none_or(|kind| kind == self.kind)
    }

    fn exactness(id: &ToyId) -> Exactness {
        if id.kind.is_some() {
            Exactness::Exact
        } else {
            Exactness::Wildcard
        }
    }

    fn alias(&self) -> String {
        format!("toy:{}", self.kind)
    }

    fn quiesce(&self, _: ByBus<Self>) -> BoxFuture<'_, ()> {
        Box::pin(async { self.journal.write(format!("quiesce {}", self.name())) })
    }

    fn leaving(&self, _: ByBus<Self>) {
        self.journal.write(format!("leaving {}", self.name()));
    }

    fn left(&self, _: ByBus<Self>) -> BoxFuture<'_, ()> {
        Box::pin(async { self.journal.write(format!("left {}", self.name())) })
    }
}

/// A driver that can be told to fail.
pub struct ToyDriver {
    name: String,
    ids: Vec<ToyId>,
    journal: Journal,
    failures: AtomicUsize,
    refuse_suspend: bool,
    /// Lets others run in the middle of a probe and of a removal.
    pause: Option<Arc<FakePlatform>>,
}

impl ToyDriver {
    pub fn new(name: &str, ids: Vec<ToyId>, journal: &Journal) -> Self {
        Self {
            name: name.to_owned(),
            ids,
            journal: journal.clone(),
            failures: AtomicUsize::new(0),
            refuse_suspend: false,
            pause: None,
        }
    }

    /// Lets the next `count` probes fail.
    pub fn failing(self, count: usize) -> Self {
        Self {
            failures: AtomicUsize::new(count),
            ..self
        }
    }

    pub fn refusing_suspend(self) -> Self {
        Self {
            refuse_suspend: true,
            ..self
        }
    }

    pub fn pausing(self, platform: &Arc<FakePlatform>) -> Self {
        Self {
            pause: Some(Arc::clone(platform)),
            ..self
        }
    }
}

/// Why a probe fails.
#[derive(Debug, thiserror::Error)]
#[error("the test says so")]
struct Told;

impl Driver<Toy> for ToyDriver {
    fn name(&self) -> &str {
        &self.name
    }

    fn ids(&self) -> &[ToyId] {
        &self.ids
    }

    fn probe<'a>(
        &'a self,
        device: Claim<Toy>,
        id: Option<&'a ToyId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            let data = id.map_or(String::new(), |id| format!(" with {}", id.data));
            self.journal
                .write(format!("{} probe {}{data}", self.name, device.name()));
            pause(self.pause.as_ref()).await;
            let fails = self
                .failures
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                });
            if fails.is_ok() {
                return Err(ProbeError::unsuitable(Told));
            }
            let hold = Hold {
                driver: self.name.clone(),
                device: device.name().to_owned(),
                journal: self.journal.clone(),
                refuse_suspend: self.refuse_suspend,
                pause: self.pause.clone(),
            };
            Ok(Box::new(hold) as Box<dyn Bound>)
        })
    }
}

async fn pause(platform: Option<&Arc<FakePlatform>>) {
    use vdpa::Platform;
    if let Some(platform) = platform {
        platform.sleep(std::time::Duration::from_millis(10)).await;
    }
}

struct Hold {
    driver: String,
    device: String,
    journal: Journal,
    refuse_suspend: bool,
    pause: Option<Arc<FakePlatform>>,
}

impl Hold {
    fn note(&self, what: &str) {
        self.journal
            .write(format!("{} {what} {}", self.driver, self.device));
    }
}

impl Bound for Hold {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            pause(self.pause.as_ref()).await;
            self.note("remove");
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.note("shutdown") })
    }

    fn suspend(&self) -> BoxFuture<'_, Result<(), PowerError>> {
        Box::pin(async {
            self.note("suspend");
            if self.refuse_suspend {
                Err(PowerError::Busy)
            } else {
                Ok(())
            }
        })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), PowerError>> {
        Box::pin(async {
            self.note("resume");
            Ok(())
        })
    }
}

/// Any device of this kind.
pub fn row(kind: &'static str, data: u64) -> ToyId {
    ToyId {
        kind: Some(kind),
        data,
    }
}

/// Any device.
pub fn any(data: u64) -> ToyId {
    ToyId { kind: None, data }
}

/// Runs a future to its end.
pub fn run<F: Future>(future: F) -> F::Output {
    FakePlatform::new().block_on(future)
}

/// An empty bus.
pub struct World {
    pub root: Arc<Node>,
    pub bus: Arc<ToyBus>,
    pub journal: Journal,
}

pub fn world() -> World {
    World {
        root: Node::root("root"),
        bus: Bus::new("toy"),
        journal: Journal::default(),
    }
}

impl World {
    pub async fn add(&self, name: &str) -> Arc<Toy> {
        let device = Toy::named(&self.root, name, &self.journal);
        self.bus
            .add_device(Arc::clone(&device))
            .await
            .expect("a good name");
        device
    }

    pub async fn drive(&self, driver: ToyDriver) {
        self.bus
            .add_driver(Arc::new(driver))
            .await
            .expect("a good name");
    }

    pub fn driver(&self, name: &str) -> ToyDriver {
        ToyDriver::new(name, Vec::new(), &self.journal)
    }

    pub fn table(&self, name: &str, ids: Vec<ToyId>) -> ToyDriver {
        ToyDriver::new(name, ids, &self.journal)
    }
}
