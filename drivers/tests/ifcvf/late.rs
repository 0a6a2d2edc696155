//! Queues that stop after they have been given up, and those that never do.

use std::time::Duration;

use ifcvf_card::{Delay, Plan, Product};
use vdpa::Platform;
use vdpa::ops::OpError;

use crate::bench::Bench;
use crate::rig::{Rig, ring};

const NETS: [Product; 2] = [Product::N3000Net, Product::C5000xNet];

fn stops(bench: &Bench, when: Delay) {
    bench.card().set_faults(|faults| faults.stop = when);
}

#[test]
fn a_card_that_has_stopped_too_late_goes_on() {
    for product in NETS {
        let (bench, device) = Bench::one(Plan::new(product));
        let mut rig = Rig::start(bench.platform(), &device, ring());
        rig.send(0, 1);
        assert_eq!(rig.frame(0), 1);
        stops(&bench, Delay::Never);
        assert_eq!(bench.run(device.suspend()), Err(OpError::Timeout));
        stops(&bench, Delay::AtOnce);
        bench.run(device.resume()).unwrap();
        rig.send(0, 2);
        assert_eq!(rig.frame(0), 2);
        bench.assert_lawful();
        rig.stop();
    }
}

#[test]
fn a_card_that_has_stopped_too_late_is_suspended_when_asked_again() {
    for product in NETS {
        let (bench, device) = Bench::one(Plan::new(product));
        let mut rig = Rig::start(bench.platform(), &device, ring());
        rig.send(0, 1);
        assert_eq!(rig.frame(0), 1);
        stops(&bench, Delay::Never);
        assert_eq!(bench.run(device.suspend()), Err(OpError::Timeout));
        stops(&bench, Delay::AtOnce);
        bench.run(device.suspend()).unwrap();
        rig.states().unwrap();
        bench.run(device.resume()).unwrap();
        rig.send(0, 2);
        assert_eq!(rig.frame(0), 2);
        bench.assert_lawful();
        rig.stop();
    }
}

#[test]
fn a_queue_that_has_stopped_too_late_starts_again() {
    for product in NETS {
        let (bench, device) = Bench::one(Plan::new(product));
        let mut rig = Rig::start(bench.platform(), &device, ring());
        rig.send(0, 1);
        assert_eq!(rig.frame(0), 1);
        stops(&bench, Delay::Never);
        assert_eq!(bench.run(device.stop_queue(0)), Err(OpError::Timeout));
        stops(&bench, Delay::AtOnce);
        rig.pass(Duration::from_secs(2));
        bench.run(device.stop_queue(0)).unwrap();
        bench.run(device.start_queue(0)).unwrap();
        rig.send(0, 2);
        assert_eq!(rig.frame(0), 2);
        bench.assert_lawful();
        rig.stop();
    }
}

#[test]
fn queues_that_never_stop_cost_one_deadline_together() {
    let plan = Plan::new(Product::N3000Net);
    let (bench, device) = Bench::one(Plan {
        queues: 4,
        vectors: 16,
        ..plan
    });
    let rig = Rig::start(bench.platform(), &device, ring());
    stops(&bench, Delay::Never);
    let before = bench.platform().now();
    for queue in 0..device.queue_count() {
        let stopped = bench.run(device.stop_queue(queue));
        assert_eq!(stopped, Err(OpError::Timeout));
    }
    assert!(bench.platform().now() - before < Duration::from_secs(3));
    rig.stop();
}
