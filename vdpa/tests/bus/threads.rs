//! Devices and drivers that come and go on several threads at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use vdpa::Node;
use vdpa::bus::{Bound, Bus, BusDevice, ByBus, Claim, Driver, ProbeError};
use vdpa::platform::BoxFuture;

/// How often devices and drivers shall meet before everybody goes home.
const MEETINGS: usize = 1000;

struct Shared {
    node: Arc<Node>,
    held: Arc<AtomicBool>,
}

impl BusDevice for Shared {
    type Id = ();

    fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn match_name(&self) -> &'static str {
        "shared"
    }

    fn matches(&self, (): &()) -> bool {
        true
    }

    fn alias(&self) -> String {
        String::from("shared")
    }

    fn quiesce(&self, _: ByBus<Self>) -> BoxFuture<'_, ()> {
        Box::pin(async {
            assert!(
                !self.held.load(Ordering::SeqCst),
                "a device at rest has no driver"
            );
            yield_once().await;
        })
    }
}

/// A driver that notices if it has to share a device.
struct Jealous {
    name: String,
    probes: Arc<AtomicUsize>,
    removals: Arc<AtomicUsize>,
}

struct Held {
    held: Arc<AtomicBool>,
    removals: Arc<AtomicUsize>,
}

impl Driver<Shared> for Jealous {
    fn name(&self) -> &str {
        &self.name
    }

    fn ids(&self) -> &[()] {
        &[()]
    }

    fn probe<'a>(
        &'a self,
        device: Claim<Shared>,
        _id: Option<&'a ()>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            assert!(
                !device.held.swap(true, Ordering::SeqCst),
                "one driver at a time"
            );
            yield_once().await;
            self.probes.fetch_add(1, Ordering::SeqCst);
            let (held, removals) = (Arc::clone(&device.held), Arc::clone(&self.removals));
            Ok(Box::new(Held { held, removals }) as Box<dyn Bound>)
        })
    }
}

impl Bound for Held {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            yield_once().await;
            self.removals.fetch_add(1, Ordering::SeqCst);
            assert!(self.held.swap(false, Ordering::SeqCst), "it was held");
        })
    }
}

async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        thread::yield_now();
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn devices_and_drivers_come_and_go_on_several_threads() {
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        storm();
        done.send(()).expect("the test waits");
    });
    let result = finished.recv_timeout(Duration::from_secs(60));
    assert!(result.is_ok(), "a thread hangs or has failed: {result:?}");
}

fn storm() {
    let root = Node::root("root");
    let bus = Bus::<Shared>::new("shared");
    let (probes, removals) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let enough = || probes.load(Ordering::SeqCst) >= MEETINGS;
    thread::scope(|scope| {
        for number in 0..3 {
            let (bus, root, enough) = (&bus, &root, &enough);
            scope.spawn(move || {
                while !enough() {
                    block_on(device_comes_and_goes(bus, root, number));
                }
            });
        }
        for number in 0..2 {
            let (bus, probes, removals, enough) = (&bus, &probes, &removals, &enough);
            scope.spawn(move || {
                while !enough() {
                    let name = format!("driver{number}");
                    let (probes, removals) = (Arc::clone(probes), Arc::clone(removals));
                    block_on(driver_comes_and_goes(
                        bus,
                        Jealous {
                            name,
                            probes,
                            removals,
                        },
                    ));
                }
            });
        }
        scope.spawn(|| {
            for driver in ["driver0", "driver1"].iter().cycle() {
                for device in bus.devices() {
                    block_on(bus.set_override(&device, Some(driver)));
                    block_on(bus.set_override(&device, None));
                }
                assert!(bus.unmatched().len() <= 3);
                if enough() {
                    return;
                }
            }
        });
    });
    assert_eq!(
        probes.load(Ordering::SeqCst),
        removals.load(Ordering::SeqCst)
    );
    assert_eq!(bus.close(), Ok(()));
    assert!(root.children().is_empty());
}

async fn device_comes_and_goes(bus: &Arc<Bus<Shared>>, root: &Arc<Node>, number: usize) {
    let node = Node::child(root, &format!("device{number}"));
    let device = Arc::new(Shared {
        node,
        held: Arc::default(),
    });
    bus.add_device(Arc::clone(&device))
        .await
        .expect("a name of its own");
    yield_once().await;
    bus.remove_device(&device).await;
    assert!(
        !device.held.load(Ordering::SeqCst),
        "a removed device has no driver"
    );
}

async fn driver_comes_and_goes(bus: &Arc<Bus<Shared>>, driver: Jealous) {
    let name = driver.name.clone();
    bus.add_driver(Arc::new(driver))
        .await
        .expect("a name of its own");
    bus.rescan().await;
    bus.remove_driver(&name).await;
}
