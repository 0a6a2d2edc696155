//! Live traffic that is moved from a card to a simulator and back.

use std::io;
use std::sync::Arc;

use ifcvf_card::{Plan, Product, Storage};
use vdpa::Features;
use vdpa::device::{Removal, VdpaDevice};
use vdpa_sim::{RamDisk, SimConfig};

use crate::bench::Bench;
use crate::traffic::Traffic;
use crate::world::{CAPACITY, World, ram_disk, sim_anywhere};
use crate::writers::Writers;

/// The medium of a simulated disk, for a card.
#[derive(Clone)]
pub(crate) struct Medium(pub(crate) Arc<RamDisk>);

impl std::fmt::Debug for Medium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Medium")
    }
}

impl Storage for Medium {
    fn size(&self) -> u64 {
        CAPACITY
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, bytes).map_err(io::Error::other)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write(offset, bytes).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A world with a card in a slot, whose device the virtio side has.
pub(crate) async fn with_card(w: &World, bench: &Bench) -> Arc<VdpaDevice> {
    let parent = bench.parent(0).await.unwrap();
    w.add(Box::new(parent)).await
}

/// A simulator that offers what the card offers.
fn sim(plan: &Plan) -> SimConfig {
    SimConfig {
        features: Some(Features::from_bits(plan.features)),
        ..sim_anywhere()
    }
}

#[test]
fn a_disk_goes_to_a_simulator_and_back() {
    for product in [Product::C5000xBlk, Product::ModernBlk] {
        let w = World::new();
        let medium = ram_disk();
        let plan = Plan {
            queues: 1,
            ..Plan::new(product)
        };
        let disk = Medium(Arc::clone(&medium));
        let bench = Bench::with_disk(&w.platform, [plan.clone()], &disk);
        w.platform.block_on(async {
            let card = with_card(&w, &bench).await;
            let disk = w.made.disks.take().unwrap();
            let sim = w.add_spare(w.sim_blk(&medium, &sim(&plan))).await;
            let writers = Writers::start(&w, &disk);
            for _ in 0..3 {
                writers.progress(&w).await;
                w.move_device(&card, &sim).await.unwrap();
                assert!(card.status().unwrap().is_empty());
                writers.progress(&w).await;
                w.move_device(&sim, &card).await.unwrap();
            }
            writers.progress(&w).await;
            writers.finish(&w, &medium).await;
            drop(disk);
            for device in [card, sim] {
                w.vdpa.unregister(&device, Removal::Orderly).await;
            }
        });
        bench.assert_lawful();
        assert!(bench.card().counters().writes() > 50);
        assert_eq!(bench.card().counters().failed(), 0);
        assert_eq!(w.memory(), 0, "{product}");
    }
}

#[test]
fn an_interface_goes_to_a_simulator_and_back() {
    for product in [Product::N3000Net, Product::C5000xNet] {
        let w = World::new();
        let config = vdpa_sim::SimNetConfig::default();
        let plan = Plan {
            queues: 1,
            mac: config.mac.0,
            mtu: config.mtu,
            ..Plan::new(product)
        };
        let bench = Bench::with_disk(&w.platform, [plan.clone()], &Medium(ram_disk()));
        w.platform.block_on(async {
            let card = with_card(&w, &bench).await;
            let interface = w.made.nets.take().unwrap();
            let sim = w.add_spare(w.sim_net(&sim(&plan))).await;
            let traffic = Traffic::start(&w, interface);
            for _ in 0..3 {
                traffic.progress(&w).await;
                w.move_device(&card, &sim).await.unwrap();
                traffic.progress(&w).await;
                w.move_device(&sim, &card).await.unwrap();
            }
            traffic.progress(&w).await;
            let interface = traffic.finish(&w).await;
            for device in [card, sim] {
                w.vdpa.unregister(&device, Removal::Orderly).await;
            }
            drop(interface);
        });
        bench.assert_lawful();
        let counters = bench.card().counters();
        assert_eq!(counters.sent(), counters.received(), "{product}");
        assert!(counters.sent() > 100, "{product}");
        assert_eq!(w.memory(), 0, "{product}");
    }
}
