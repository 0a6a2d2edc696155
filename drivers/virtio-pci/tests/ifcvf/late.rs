//! Queues that stop after they have been given up, and those that never do.

use std::time::Duration;

use ifcvf_card::{Delay, Plan, Product};
use vdpa::Platform;
use vdpa::device::VdpaClaim;
use vdpa::ops::OpError;

use crate::bench::Bench;
use crate::rig::{Rig, ring};

fn stops(bench: &Bench, when: Delay) {
    bench.card().set_faults(|faults| faults.stop = when);
}

/// What is done to a card.
type Act = fn(&Bench, &VdpaClaim, &mut Rig) -> Result<(), OpError>;

/// A card does not stop in time when it is told to, and is mended afterwards, in either layout: it
/// goes on.
fn goes_on(told_to_stop: Act, mended: Act) {
    for product in [Product::N3000Net, Product::C5000xNet] {
        let (bench, device) = Bench::one(Plan::new(product));
        let mut rig = Rig::start(bench.platform(), &device, ring());
        rig.send(0, 1);
        assert_eq!(rig.frame(0), 1);
        stops(&bench, Delay::Never);
        let stopped = told_to_stop(&bench, &device, &mut rig);
        assert_eq!(stopped, Err(OpError::Timeout), "{product}");
        stops(&bench, Delay::AtOnce);
        mended(&bench, &device, &mut rig).unwrap();
        rig.send(0, 2);
        assert_eq!(rig.frame(0), 2);
        bench.assert_lawful();
        rig.stop();
    }
}

fn suspend(bench: &Bench, device: &VdpaClaim, _: &mut Rig) -> Result<(), OpError> {
    bench.run(device.suspend())
}

#[test]
fn a_card_that_has_stopped_too_late_goes_on() {
    goes_on(suspend, |bench, device, _| bench.run(device.resume()));
}

#[test]
fn a_card_that_has_stopped_too_late_is_suspended_when_asked_again() {
    goes_on(suspend, |bench, device, rig| {
        bench.run(device.suspend())?;
        bench.run(rig.states()).unwrap();
        bench.run(device.resume())
    });
}

#[test]
fn a_queue_that_has_stopped_too_late_starts_again() {
    let stop: Act = |bench, device, _| bench.run(device.stop_queue(0));
    goes_on(stop, |bench, device, rig| {
        rig.pass(Duration::from_secs(2));
        bench.run(device.stop_queue(0))?;
        bench.run(device.start_queue(0))
    });
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
