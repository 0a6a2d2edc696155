//! A bus of one's own: three `lan` devices and one `aux` driver that drives them all.
//!
//! The devices are typed: the driver calls them, nothing is hidden behind a pointer.
//! Run it on the host: `cargo run -p vdpa --example lan`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vdpa::Node;
use vdpa::bus::{Bound, Bus, BusDevice, Claim, Driver, ProbeError};
use vdpa::ids::IdGuard;
use vdpa::platform::BoxFuture;
use vdpa::power;

/// A port that can send frames.
struct LanDevice {
    node: Arc<Node>,
    sent: AtomicUsize,
    id: IdGuard,
}

impl LanDevice {
    fn new(bus: &Bus<Self>, parent: &Arc<Node>) -> Arc<Self> {
        let id = bus.allocate_id().expect("few devices");
        let node = Node::child(parent, &format!("lan.{}", id.number()));
        Arc::new(Self {
            node,
            sent: AtomicUsize::new(0),
            id,
        })
    }

    fn send(&self, frame: &[u8]) {
        self.sent.fetch_add(frame.len(), Ordering::Relaxed);
    }
}

impl BusDevice for LanDevice {
    type Id = &'static str;

    fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn match_name(&self) -> &'static str {
        "lan"
    }

    fn matches(&self, id: &&'static str) -> bool {
        *id == self.match_name()
    }

    fn alias(&self) -> String {
        String::from("lan")
    }
}

/// A driver that sends a greeting through every port it gets, and a farewell when it lets go.
struct Aux;

struct AuxPort(Arc<LanDevice>);

impl Driver<LanDevice> for Aux {
    fn name(&self) -> &'static str {
        "aux"
    }

    fn ids(&self) -> &[&'static str] {
        &["lan"]
    }

    fn probe<'a>(
        &'a self,
        device: Claim<LanDevice>,
        id: Option<&'a &'static str>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            device.send(b"hello");
            println!("aux drives {} (matched {id:?})", device.node.name());
            Ok(Box::new(AuxPort(Arc::clone(&device))) as Box<dyn Bound>)
        })
    }
}

impl Bound for AuxPort {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.0.send(b"bye");
            println!("aux lets {} go", self.0.node.name());
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { println!("{} goes down", self.0.node.name()) })
    }
}

async fn demo() {
    let root = Node::root("root");
    let bus = Bus::new("lan");
    let mut ports = Vec::new();
    for _ in 0..3 {
        let port = LanDevice::new(&bus, &root);
        bus.add_device(Arc::clone(&port))
            .await
            .expect("the names differ");
        ports.push(port);
    }
    println!("without a driver: {:?}", bus.unmatched());
    bus.add_driver(Arc::new(Aux))
        .await
        .expect("the first driver");
    power::shutdown(&root).await;
    bus.remove_driver("aux").await;
    for port in ports {
        bus.remove_device(&port).await;
        println!(
            "port {} has sent {} bytes",
            port.id.number(),
            port.sent.load(Ordering::Relaxed)
        );
    }
    bus.close().expect("every device and every id is gone");
}

fn main() {
    embassy_futures::block_on(demo());
}
