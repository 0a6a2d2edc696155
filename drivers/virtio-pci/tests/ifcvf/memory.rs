//! The driver does no DMA: what the card reaches belongs to the driver of its queues.

use ifcvf_card::{Plan, Product};

use crate::bench::Bench;
use crate::rig::{Rig, must};

#[test]
fn the_driver_has_no_memory_of_its_own() {
    for product in Product::ALL {
        let bench = Bench::new([Plan::new(product)]);
        bench.probe();
        let device = bench.held().remove(0);
        assert_eq!(bench.platform().heap().outstanding(), 0, "{product}");
        let mut rig = Rig::new(bench.platform(), &device, must());
        let before = bench.platform().heap().outstanding();
        let states = vec![None; rig.lines.len()];
        bench.run(rig.run(&states)).unwrap();
        bench.run(device.suspend()).unwrap();
        bench.run(device.resume()).unwrap();
        assert_eq!(bench.platform().heap().outstanding(), before, "{product}");
        rig.stop();
        assert_eq!(bench.platform().heap().outstanding(), 0, "{product}");
    }
}
