//! The drivers on a card that holds them to the specification: not one statement is broken, on
//! cards of Intel's and on plain functions, with few vectors, slow resets, and registers that
//! forget what is written too early.
//!
//! What is broken would be in [`Card::violations`](ifcvf_card::Card::violations), by the
//! statement's section.

use std::sync::Arc;

use ifcvf_card::{Delay, IdleWrites, Kind, Plan, Product, VectorOf};
use vdpa::Features;
use vdpa::device::{Removal, VdpaDevice};
use vdpa::ops::OpError;
use vdpa::testing::FakePlatform;
use virtio_net::{MacAddress, Switch};

use crate::bench::Bench;
use crate::rig::Rig;
use crate::simulators::{Medium, with_card};
use crate::traffic::Traffic;
use crate::world::{World, ram_disk};
use crate::writers::Writers;

const PRODUCTS: [Product; 7] = [
    Product::N3000Net,
    Product::C5000xNet,
    Product::C5000xBlk,
    Product::ModernBlk,
    Product::ModernBlkDefault,
    Product::VirtioNet,
    Product::VirtioBlk,
];

/// A card that forgets what is written too early, and interrupts with the vectors that are there
/// when queues are enabled.
fn strict(product: Product) -> Plan {
    Plan {
        queues: 1,
        idle_writes: IdleWrites::Reset,
        vector_of: VectorOf::Enable,
        ..Plan::new(product)
    }
}

fn without(plan: Plan, feature: virtio::F) -> Plan {
    Plan {
        features: plan.features & !Features::from(feature).bits(),
        ..plan
    }
}

/// A whole life: probed, driven with what its type can do, looked at, and taken away.
#[track_caller]
fn live(plan: &Plan) {
    let w = World::new();
    let medium = ram_disk();
    let bench = Bench::with_disk(&w.platform, [plan.clone()], &Medium(Arc::clone(&medium)));
    bench.card().set_faults(|faults| {
        faults.reset = Delay::After(2);
    });
    w.platform.block_on(async {
        let device = with_card(&w, &bench).await;
        match plan.product.kind() {
            Kind::Blk => {
                let disk = w.made.disks.take().expect("a disk");
                let writers = Writers::start(&w, &disk);
                writers.progress(&w).await;
                look(&device);
                writers.finish(&w, &medium).await;
            }
            Kind::Net => {
                let interface = w.made.nets.take().expect("an interface");
                let control = interface.control().expect("a control queue");
                control.set_promiscuous(Switch::On).await.unwrap();
                control.set_all_multicast(Switch::On).await.unwrap();
                let mac = MacAddress([2, 0, 0, 0, 0, 9]);
                control.set_mac(mac).await.unwrap();
                let traffic = Traffic::start(&w, interface);
                traffic.progress(&w).await;
                look(&device);
                drop(traffic.finish(&w).await);
            }
        }
        w.vdpa.unregister(&device, Removal::Orderly).await;
    });
    bench.assert_lawful();
    assert!(bench.card().counters().resets >= 2, "{}", plan.product);
}

/// Everything that a listing or the device tree asks for.
fn look(device: &VdpaDevice) {
    let _ = device.node().report();
    let _ = device.status();
    let _ = device.device_features();
    let _ = device.config_generation();
    let size = device.config_size().unwrap_or(0);
    let mut config = vec![0; usize::try_from(size).unwrap()];
    let _ = device.read_config(0, &mut config);
    for queue in 0..device.queue_count() {
        let _ = device.queue_ready(queue);
        let _ = device.queue_size_limits(queue);
        let _ = device.queue_statistics(queue);
    }
}

#[test]
fn every_card_is_driven_by_the_letter_with_any_number_of_vectors() {
    for product in PRODUCTS {
        for vectors in [4, 2, 1, 0] {
            live(&Plan {
                vectors,
                ..strict(product)
            });
        }
    }
}

/// VIRTIO 1.4: their words are written, with none of them accepted.
#[test]
fn cards_with_features_that_no_driver_knows_are_driven_by_the_letter() {
    for product in PRODUCTS {
        let plan = strict(product);
        live(&Plan {
            features: plan.features | 1 << 70 | 1 << 127,
            ..plan
        });
    }
}

#[test]
fn plain_functions_are_driven_by_the_letter_with_every_kind_of_ring() {
    use virtio::F;
    let fewer = [
        F::RING_PACKED,
        F::IN_ORDER,
        F::RING_PACKED | F::IN_ORDER,
        F::EVENT_IDX,
        F::INDIRECT_DESC,
        F::RING_PACKED | F::EVENT_IDX | F::INDIRECT_DESC,
    ];
    for product in Product::PLAIN {
        for feature in fewer {
            live(&without(strict(product), feature));
        }
    }
}

#[test]
fn whoever_looks_at_a_device_that_nobody_drives_writes_nothing() {
    for product in PRODUCTS {
        let (bench, device) = Bench::one(strict(product));
        look(&device);
        bench.assert_lawful();
        let rig = Rig::start(bench.platform(), &device, crate::rig::must());
        look(&device);
        rig.stop();
        look(&device);
        bench.assert_lawful();
    }
}

/// To another card and back, while the driver works.
#[test]
fn devices_are_moved_by_the_letter() {
    for product in PRODUCTS {
        let w = World::new();
        let medium = ram_disk();
        let disk = Medium(Arc::clone(&medium));
        // Who cannot be told where it stands cannot take over rings that are used in order.
        let plan = without(strict(product), virtio::F::IN_ORDER);
        let bench = Bench::with_disk(&w.platform, [plan.clone(), plan], &disk);
        w.platform.block_on(async {
            let one = with_card(&w, &bench).await;
            let other = bench.parent(1).await.unwrap();
            let other = w.add_spare(Box::new(other)).await;
            match product.kind() {
                Kind::Blk => {
                    let disk = w.made.disks.take().unwrap();
                    let writers = Writers::start(&w, &disk);
                    for _ in 0..2 {
                        writers.progress(&w).await;
                        w.move_device(&one, &other).await.unwrap();
                        writers.progress(&w).await;
                        w.move_device(&other, &one).await.unwrap();
                    }
                    writers.finish(&w, &medium).await;
                }
                Kind::Net => {
                    let interface = w.made.nets.take().unwrap();
                    let traffic = Traffic::start(&w, interface);
                    for _ in 0..2 {
                        traffic.progress(&w).await;
                        w.move_device(&one, &other).await.unwrap();
                        traffic.progress(&w).await;
                        w.move_device(&other, &one).await.unwrap();
                    }
                    drop(traffic.finish(&w).await);
                }
            }
            for device in [one, other] {
                w.vdpa.unregister(&device, Removal::Orderly).await;
            }
        });
        bench.assert_lawful();
    }
}

/// A queue is stopped alone with `RING_RESET`, set up anew and started, and interrupts as before.
#[test]
fn a_queue_is_reset_by_the_letter() {
    for delay in [Delay::AtOnce, Delay::After(3)] {
        let (bench, device) = Bench::one(strict(Product::VirtioNet));
        bench.card().set_faults(|faults| faults.queue_reset = delay);
        let features = crate::rig::ring() | virtio::F::RING_RESET.into();
        let mut rig = Rig::start(bench.platform(), &device, features);
        rig.send(0, 1);
        assert_eq!(rig.frame(0), 1);
        bench.run(device.stop_queue(0)).unwrap();
        rig.restart(0);
        rig.send(0, 2);
        let before = rig.lines[0].event.count();
        assert_eq!(rig.frame(0), 2);
        assert!(rig.lines[0].event.count() > before, "it interrupts");
        bench.assert_lawful();
        rig.stop();
    }
    let (bench, device) = Bench::one(strict(Product::VirtioBlk));
    let features = crate::rig::ring() | virtio::F::RING_RESET.into();
    let rig = Rig::start(bench.platform(), &device, features);
    bench
        .card()
        .set_faults(|faults| faults.queue_reset = Delay::Never);
    assert_eq!(bench.run(device.stop_queue(0)), Err(OpError::Timeout));
    bench.assert_lawful();
    rig.stop();
}

/// A function that lacks what is needed is told so (VIRTIO 1.2, 2.2.1), and the rest of the machine
/// goes on.
#[test]
fn a_function_that_cannot_be_used_is_told_so() {
    const FAILED: u8 = 128;
    let plan = without(strict(Product::VirtioNet), virtio::F::VERSION_1);
    let good = strict(Product::VirtioNet);
    let bench = Bench::new([plan, good]);
    bench.probe();
    assert_eq!(bench.vdpa.devices().len(), 1);
    assert_eq!(bench.card().status() & FAILED, FAILED);
    bench.assert_lawful();
    let plan = without(strict(Product::N3000Net), virtio::F::ACCESS_PLATFORM);
    let bench = Bench::new([plan]);
    bench.probe();
    assert_eq!(bench.card().status() & FAILED, FAILED);
    bench.assert_lawful();
}

#[test]
fn a_function_whose_reset_never_ends_is_not_driven() {
    let platform = FakePlatform::new();
    let disk = Medium(ram_disk());
    let bench = Bench::with_disk(&platform, [strict(Product::VirtioBlk)], &disk);
    bench
        .card()
        .set_faults(|faults| faults.reset = Delay::Never);
    bench.assert_refused();
    bench.assert_lawful();
}

/// Ten network cards and twenty disks with fewer vectors than they would like: all of them work.
#[test]
fn many_functions_share_what_vectors_there_are() {
    for vectors in [200, 40, 7, 0] {
        let w = World::new();
        let medium = ram_disk();
        let nets = [Product::VirtioNet, Product::N3000Net].into_iter().cycle();
        let disks = [Product::VirtioBlk, Product::C5000xBlk].into_iter().cycle();
        let plans = nets.take(10).chain(disks.take(20)).map(strict);
        let bench = Bench::with_disk(&w.platform, plans, &Medium(Arc::clone(&medium)));
        w.platform.limit_vectors(vectors);
        w.platform.block_on(async {
            let mut devices = Vec::new();
            for card in 0..bench.cards.len() {
                let parent = bench.parent(card).await.unwrap();
                devices.push(w.add(Box::new(parent)).await);
            }
            assert_eq!(w.made.nets.names().len(), 10);
            assert_eq!(w.made.disks.names().len(), 20);
            for _ in 0..10 {
                let traffic = Traffic::start(&w, w.made.nets.take().unwrap());
                traffic.progress(&w).await;
                drop(traffic.finish(&w).await);
            }
            for _ in 0..20 {
                let disk = w.made.disks.take().unwrap();
                let buffer = disk.buffer(512).unwrap();
                disk.read(7, buffer).await.unwrap();
            }
            for device in devices {
                w.vdpa.unregister(&device, Removal::Orderly).await;
            }
        });
        bench.assert_lawful();
        assert_eq!(w.platform.vectors_in_use(), 0);
    }
}
