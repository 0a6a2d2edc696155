//! A parent: an entropy device (VIRTIO 1.2, 5.4) that is a program, and a driver that asks it for
//! random bytes.
//!
//! [`Entropy`] is all that the maker of a device writes. [`Host`] is what a kernel brings along, and
//! [`Reader`] is the least that a driver on the vDPA bus does.
//! Run it on the host: `cargo run -p vdpa --example parent`.

mod device;
mod host;
mod reader;

use std::sync::Arc;

use vdpa::bus::Bus;
use vdpa::device::{DeviceKind, Removal, VdpaBus, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::{Node, Platform};

use self::device::Entropy;
use self::host::Host;
use self::reader::Reader;

async fn demo() -> usize {
    let platform: Arc<dyn Platform> = Host::new();
    let root = Node::root("root");
    let bus: Arc<VdpaBus> = Bus::new("vdpa");
    let reader = Arc::new(Reader::default());
    bus.add_driver(Arc::clone(&reader) as _)
        .await
        .expect("the first driver");

    let config = VdpaDeviceConfig {
        parent: Arc::clone(&root),
        // A program makes no requests on a bus of the machine.
        dma: IsolationUnit::new(&root, None, None),
        platform: Arc::clone(&platform),
        kind: DeviceKind::Software,
        name: None,
    };
    let device = bus
        .register(Entropy::start(&*platform), config)
        .await
        .expect("the first device");
    println!("{} is on the bus", device.node().path());

    let removed = bus.unregister(&device, Removal::Orderly).await;
    println!("{} has left: {removed:?}", device.node().name());
    drop(device);
    bus.remove_driver("reader").await;
    bus.close().expect("every device is gone");
    reader.bytes_read()
}

fn main() {
    embassy_futures::block_on(demo());
}

#[test]
fn the_driver_gets_what_it_asks_for() {
    assert_eq!(embassy_futures::block_on(demo()), reader::WANTED);
}
