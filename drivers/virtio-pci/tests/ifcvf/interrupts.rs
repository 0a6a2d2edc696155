//! Interrupt vectors: one per queue, shared, or none; refused, and given back; and what they tell
//! of.

use std::collections::BTreeSet;
use std::time::Duration;

use ifcvf_card::{Generation, Plan, Product, Refused};
use vdpa::Platform;
use vdpa::ops::OpError;
use vdpa::platform::PhysAddr;

use crate::bench::Bench;
use crate::rig::{Rig, must};

fn net() -> Plan {
    Plan {
        queues: 1,
        vectors: 4,
        ..Plan::new(Product::N3000Net)
    }
}

/// Who is called when the card has used something of queue 1, of queue 0 as well.
fn called(plan: Plan, limit: usize) -> (Bench, Vec<u64>, usize) {
    let (bench, device) = Bench::one(plan);
    bench.platform().limit_vectors(limit);
    let mut rig = Rig::start(bench.platform(), &device, must());
    let vectors = bench.platform().vectors_in_use();
    rig.send(0, 1);
    rig.pass(Duration::from_millis(5));
    let counts = rig.lines.iter().map(|line| line.event.count()).collect();
    bench.assert_lawful();
    rig.stop();
    assert_eq!(bench.platform().vectors_in_use(), 0);
    (bench, counts, vectors)
}

#[test]
fn each_queue_has_a_vector_if_there_are_enough() {
    let (_bench, counts, vectors) = called(net(), usize::MAX);
    assert_eq!((counts, vectors), (vec![1, 1, 0], 4));
}

#[test]
fn queues_share_a_vector_if_there_are_fewer() {
    for (vectors, limit) in [(2, usize::MAX), (3, usize::MAX), (4, 3), (4, 2)] {
        let plan = Plan { vectors, ..net() };
        let (_bench, counts, taken) = called(plan, limit);
        // Both queues had something, and each message is for all of them.
        assert_eq!((counts, taken), (vec![2, 2, 2], 2));
    }
}

#[test]
fn everything_shares_the_only_vector() {
    for (vectors, limit) in [(1, usize::MAX), (4, 1)] {
        let plan = Plan { vectors, ..net() };
        let (_bench, counts, taken) = called(plan, limit);
        assert_eq!((counts, taken), (vec![2, 2, 2], 1));
    }
}

#[test]
fn without_a_vector_the_card_is_asked() {
    for (vectors, limit) in [(0, usize::MAX), (4, 0)] {
        let plan = Plan { vectors, ..net() };
        let (_bench, counts, taken) = called(plan, limit);
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        assert_eq!(taken, 0);
    }
}

#[test]
fn a_change_of_the_configuration_is_told_once_and_a_frame_is_none() {
    for vectors in [4, 2, 0] {
        let (bench, device) = Bench::one(Plan { vectors, ..net() });
        let mut rig = Rig::start(bench.platform(), &device, must());
        for changes in 0..5 {
            assert_eq!(rig.config.count(), changes, "{vectors} vectors");
            rig.send(0, 1);
            rig.frame(0);
            rig.pass(Duration::from_millis(5));
            assert_eq!(rig.config.count(), changes, "{vectors} vectors");
            bench.card().change_config(|config| config[6] ^= 1);
            rig.pass(Duration::from_millis(5));
        }
        bench.assert_lawful();
        rig.stop();
    }
}

#[test]
fn a_vector_for_everything_tells_of_the_configuration_too() {
    let (bench, device) = Bench::one(Plan {
        vectors: 1,
        ..net()
    });
    let rig = Rig::start(bench.platform(), &device, must());
    bench.card().change_config(|config| config[6] ^= 1);
    assert_eq!(rig.config.count(), 1);
    // The ISR status has been read, which clears it.
    let base = bench.card().bar_address(0).unwrap();
    // SAFETY: this is a register of the card's model.
    let isr = unsafe { bench.platform().map_mmio(PhysAddr(base + 0x40), 1) }.unwrap();
    assert_eq!(isr.read8(0), 0);
    bench.assert_lawful();
    rig.stop();
}

#[test]
fn a_configuration_that_never_settles_is_given_up() {
    let (bench, device) = Bench::one(net());
    let rig = Rig::start(bench.platform(), &device, must());
    bench
        .card()
        .set_faults(|faults| faults.generation = Generation::Changes(3));
    let mut mac = [0; 6];
    device.read_config(0, &mut mac).unwrap();
    assert_eq!(mac, net().mac);
    bench
        .card()
        .set_faults(|faults| faults.generation = Generation::Changes(u32::MAX));
    let before = bench.card().counters().accesses;
    assert_eq!(device.read_config(0, &mut mac), Err(OpError::Timeout));
    assert!(bench.card().counters().accesses - before < 1000);
    bench.assert_lawful();
    rig.stop();
}

#[test]
fn a_card_that_refuses_a_vector_gets_fewer() {
    let some = |vector| Refused::Vectors(BTreeSet::from([vector]));
    for (vectors, refused, taken) in [
        (4, some(0), 0),
        // The configuration's; the queues share one then.
        (4, some(3), 2),
        (4, some(2), 2),
        (4, Refused::Everything, 0),
        (2, some(0), 0),
        // One for everything.
        (2, some(1), 1),
        (1, some(0), 0),
    ] {
        let (bench, device) = Bench::one(Plan { vectors, ..net() });
        bench
            .card()
            .set_faults(|faults| faults.refused = refused.clone());
        let mut rig = Rig::new(bench.platform(), &device, must());
        bench.run(rig.run(&[None; 3])).unwrap();
        assert_eq!(bench.platform().vectors_in_use(), taken, "{vectors}");
        assert_eq!(bench.card().unmasked(), taken, "{vectors} {refused:?}");
        rig.send(0, 1);
        rig.frame(0);
        rig.pass(Duration::from_millis(5));
        for line in &rig.lines[..2] {
            assert!(line.event.count() > 0, "{vectors} {refused:?}");
        }
        bench.card().change_config(|config| config[6] ^= 1);
        rig.pass(Duration::from_millis(5));
        assert!(rig.config.count() > 0, "{vectors} {refused:?}");
        bench.assert_lawful();
        rig.stop();
    }
}

#[test]
fn a_vector_is_refused_when_a_queue_starts_again() {
    let (bench, device) = Bench::one(net());
    let rig = Rig::start(bench.platform(), &device, must());
    bench.run(device.stop_queue(1)).unwrap();
    bench
        .card()
        .set_faults(|faults| faults.refused = Refused::Everything);
    let answer = bench.run(device.start_queue(1));
    assert_eq!(answer, Err(OpError::VectorRefused));
    rig.stop();
    bench.assert_lawful();
}

#[test]
fn no_interrupt_comes_after_the_reset() {
    for vectors in [4, 2, 1, 0] {
        let (bench, device) = Bench::one(Plan { vectors, ..net() });
        let mut rig = Rig::start(bench.platform(), &device, must());
        rig.send(0, 1);
        bench.run(device.reset()).unwrap();
        assert_eq!(bench.platform().vectors_in_use(), 0);
        assert_eq!(bench.card().unmasked(), 0);
        let count = |rig: &Rig| -> u64 { rig.lines.iter().map(|line| line.event.count()).sum() };
        let before = count(&rig);
        bench.card().change_config(|config| config[6] ^= 1);
        rig.pass(Duration::from_millis(20));
        assert_eq!(count(&rig), before, "{vectors} vectors");
        rig.stop();
    }
}
