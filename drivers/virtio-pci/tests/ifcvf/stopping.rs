//! Queues that are stopped and started while the device runs, and how long that may take.

use std::time::Duration;

use ifcvf_card::{BlkStop, Delay, Plan, Product, Served};
use vdpa::Platform;
use vdpa::ops::{OpError, QueueState};
use vdpa::platform::PhysAddr;

use crate::bench::Bench;
use crate::rig::{Rig, must, ring};

#[test]
fn a_card_that_never_leaves_reset_is_given_up_after_a_deadline() {
    for product in Product::ALL {
        let (bench, device) = Bench::one(Plan::new(product));
        let rig = Rig::start(bench.platform(), &device, must());
        bench
            .card()
            .set_faults(|faults| faults.reset = Delay::Never);
        let before = bench.platform().now();
        assert_eq!(
            bench.run(device.reset()),
            Err(OpError::Timeout),
            "{product}"
        );
        let waited = bench.platform().now() - before;
        assert!(waited >= Duration::from_millis(500) && waited < Duration::from_secs(3));
        bench
            .card()
            .set_faults(|faults| faults.reset = Delay::AtOnce);
        rig.stop();
        bench.assert_lawful();
    }
}

#[test]
fn a_queue_that_never_stops_is_given_up_after_a_deadline() {
    for product in Product::ALL {
        let (bench, device) = Bench::one(Plan::new(product));
        let rig = Rig::start(bench.platform(), &device, must());
        bench.card().set_faults(|faults| faults.stop = Delay::Never);
        let before = bench.platform().now();
        assert_eq!(
            bench.run(device.suspend()),
            Err(OpError::Timeout),
            "{product}"
        );
        let waited = bench.platform().now() - before;
        // Once, and not for each of its queues.
        assert!(waited >= Duration::from_millis(500) && waited < Duration::from_secs(3));
        rig.stop();
        bench.assert_lawful();
    }
}

#[test]
fn nothing_is_read_of_a_queue_before_it_has_stopped() {
    let (bench, device) = Bench::one(Plan::new(Product::N3000Net));
    let mut rig = Rig::start(bench.platform(), &device, must());
    bench
        .card()
        .set_faults(|faults| faults.stop = Delay::After(20));
    rig.send(0, 7);
    rig.frame(0);
    bench.run(device.suspend()).unwrap();
    // Until then its words say where it has started.
    let stands = Some(QueueState::Split { avail_index: 1 });
    assert_eq!(bench.run(rig.states()).unwrap()[..2], [stands, stands]);
    rig.stop();
}

#[test]
fn a_disk_is_stopped_when_it_has_finished_what_it_has_begun() {
    for blk_stop in [BlkStop::Drains, BlkStop::AtOnce] {
        let (bench, device) = Bench::one(Plan {
            blk_stop,
            ..Plan::new(Product::C5000xBlk)
        });
        let mut rig = Rig::start(bench.platform(), &device, ring());
        bench
            .card()
            .set_faults(|faults| faults.stop = Delay::AtOnce);
        for round in 0..20_u8 {
            for sector in 0..10 {
                rig.write_sector(0, sector, round);
            }
            // It has taken some of them now, and finished none.
            assert_eq!(bench.card().serve(), Served::More);
            bench.run(device.suspend()).unwrap();
            bench.run(device.resume()).unwrap();
            for _ in 0..10 {
                assert_eq!(rig.wait(0), (vec![0], 1), "{blk_stop:?}, round {round}");
            }
        }
        assert_eq!(bench.card().counters().writes(), 200, "{blk_stop:?}");
        bench.assert_lawful();
        rig.stop();
    }
}

#[test]
fn a_queue_that_was_stopped_alone_goes_on_where_it_stood() {
    let (bench, device) = Bench::one(Plan::new(Product::N3000Net));
    let mut rig = Rig::start(bench.platform(), &device, ring());
    for number in 0..50 {
        rig.send(0, number);
        if number % 3 == 0 {
            let queue = u16::try_from(number % 2).unwrap();
            bench.run(device.stop_queue(queue)).unwrap();
            assert_eq!(device.queue_ready(queue), Ok(false));
            bench.run(device.start_queue(queue)).unwrap();
            rig.lines[usize::from(queue)].ring();
        }
        assert_eq!(rig.frame(0), number);
    }
    assert!(rig.take(0).is_none());
    bench.assert_lawful();
    rig.stop();
}

#[test]
fn what_is_used_while_the_device_stops_is_told() {
    let (bench, device) = Bench::one(Plan::new(Product::ModernBlk));
    let mut rig = Rig::start(bench.platform(), &device, must());
    rig.write_sector(0, 1, 1);
    let before = rig.lines[0].event.count();
    bench.run(device.suspend()).unwrap();
    bench.run(device.resume()).unwrap();
    assert_eq!(rig.take(0), Some((vec![0], 1)));
    assert!(rig.lines[0].event.count() > before);
    bench.assert_lawful();
    rig.stop();
}

#[test]
fn a_stopped_device_calls_nobody() {
    let (bench, device) = Bench::one(Plan::new(Product::N3000Net));
    let mut rig = Rig::start(bench.platform(), &device, must());
    rig.send(0, 1);
    bench.run(device.suspend()).unwrap();
    let counts = |rig: &Rig| {
        let counts = rig.lines.iter().map(|line| line.event.count());
        counts.collect::<Vec<_>>()
    };
    let before = counts(&rig);
    rig.lines.iter().for_each(crate::rig::Line::ring);
    rig.pass(Duration::from_millis(20));
    assert_eq!(counts(&rig), before);
    // What was rung meanwhile is served afterwards.
    bench.run(device.resume()).unwrap();
    assert_eq!(rig.frame(0), 1);
    bench.assert_lawful();
    rig.stop();
}

#[test]
fn a_queue_has_no_vector_while_it_is_stopped() {
    let (bench, device) = Bench::one(Plan::new(Product::N3000Net));
    let rig = Rig::start(bench.platform(), &device, must());
    let base = bench.card().bar_address(0).unwrap();
    // SAFETY: these are registers of the card's model.
    let common = unsafe { bench.platform().map_mmio(PhysAddr(base), 0x38) }.unwrap();
    let vectors = || {
        [0, 1, 2].map(|queue| {
            // SAFETY: the register only says which queue the others show.
            unsafe { common.write16(0x16, queue) };
            common.read16(0x1a)
        })
    };
    let running = vectors();
    assert!(running.iter().all(|vector| *vector != 0xffff));
    bench.run(device.stop_queue(1)).unwrap();
    assert_eq!(vectors(), [running[0], 0xffff, running[2]]);
    bench.run(device.start_queue(1)).unwrap();
    assert_eq!(vectors(), running);
    bench.run(device.suspend()).unwrap();
    assert_eq!(vectors(), [0xffff; 3]);
    bench.run(device.resume()).unwrap();
    assert_eq!(vectors(), running);
    bench.assert_lawful();
    rig.stop();
}
