//! From one card to another with the queues where they stood.

use std::sync::Arc;
use std::time::Duration;

use ifcvf_card::{BlkStop, Delay, Plan, Product, RamDisk};
use vdpa::Features;
use vdpa::device::VdpaClaim;
use vdpa::ops::OpError;
use vdpa::testing::FakePlatform;

use crate::bench::Bench;
use crate::rig::{BUFFER, Rig, multiqueue, must, ring};

const MOVES: u32 = 12;

/// Frames on both pairs of a card, moved to and fro while some of them are on their way.
fn check_frames(products: [Product; 2], features: Features) {
    let (bench, devices) = Bench::probed(products.map(Plan::new));
    let mut rig = Rig::start(bench.platform(), &devices[0], features | multiqueue());
    let mut sent = [0, 0];
    let mut received = [0, 0];
    for round in 0..MOVES {
        for pair in [0, 1] {
            // Some buffers more than frames, so that the card has taken them when it is stopped.
            if round == 0 {
                for _ in 0..5 {
                    rig.ask(2 * pair, &[], BUFFER);
                }
            }
            for _ in 0..4 {
                rig.send(pair, sent[pair]);
                sent[pair] += 1;
            }
        }
        rig.pass(Duration::from_micros(u64::from(round % 3) * 60));
        let to = &devices[1 - usize::try_from(round % 2).unwrap()];
        bench.run(rig.move_to(to)).unwrap();
        for pair in [0, 1] {
            while let Some(number) = rig.received(pair) {
                assert_eq!(number, received[pair], "{products:?}, pair {pair}");
                received[pair] += 1;
            }
        }
    }
    rig.pass(Duration::from_millis(5));
    for pair in [0, 1] {
        while let Some(number) = rig.received(pair) {
            assert_eq!(number, received[pair], "{products:?}, pair {pair}");
            received[pair] += 1;
        }
    }
    assert_eq!(sent, received, "{products:?}");
    let both = bench.cards.iter().map(|card| card.counters());
    for counters in both {
        assert_eq!(counters.sent(), counters.received());
        assert!(counters.sent() > 10, "both have worked");
    }
    bench.assert_lawful();
    rig.stop();
}

#[test]
fn no_frame_is_lost_or_doubled_between_two_cards() {
    for product in [Product::N3000Net, Product::C5000xNet] {
        for features in [must(), ring()] {
            check_frames([product; 2], features);
        }
    }
}

#[test]
fn no_frame_is_lost_or_doubled_between_cards_of_different_layouts() {
    check_frames([Product::N3000Net, Product::C5000xNet], ring());
    check_frames([Product::C5000xNet, Product::N3000Net], ring());
}

/// Writes to both queues, moved while some of them are in flight.
fn check_writes(plans: [Plan; 2], features: Features) {
    let disk = RamDisk::new(256);
    let bench = Bench::with_disk(&FakePlatform::new(), plans, &disk);
    bench.probe();
    let devices: Vec<Arc<VdpaClaim>> = bench.held();
    let mut rig = Rig::start(bench.platform(), &devices[0], features);
    let mut asked = [0, 0];
    let mut answered = [0, 0];
    for round in 0..MOVES {
        for queue in [0_u8, 1] {
            for sector in 0..6 {
                let number = u8::try_from(round).unwrap() * 2 + queue;
                rig.write_sector(queue.into(), sector * 2 + u64::from(queue), number);
                asked[usize::from(queue)] += 1;
            }
        }
        rig.pass(Duration::from_micros(u64::from(round % 4) * 60));
        let to = &devices[1 - usize::try_from(round % 2).unwrap()];
        bench.run(rig.move_to(to)).unwrap();
        for queue in [0, 1] {
            while let Some(answer) = rig.take(queue) {
                assert_eq!(answer, (vec![0], 1));
                answered[queue] += 1;
            }
        }
    }
    rig.pass(Duration::from_millis(5));
    for queue in [0, 1] {
        while let Some(answer) = rig.take(queue) {
            assert_eq!(answer, (vec![0], 1));
            answered[queue] += 1;
        }
    }
    assert_eq!(asked, answered);
    let counts = bench.cards.iter().map(|card| card.counters().writes());
    let counts: Vec<_> = counts.collect();
    assert_eq!(
        counts.iter().sum::<u64>(),
        u64::from(MOVES) * 12,
        "each once"
    );
    assert!(counts.iter().all(|count| *count > 0), "both have worked");
    let contents = disk.contents();
    for (sector, bytes) in contents.chunks(512).take(12).enumerate() {
        let last = u8::try_from(2 * (MOVES - 1)).unwrap() + u8::try_from(sector % 2).unwrap();
        assert!(bytes.iter().all(|byte| *byte == last), "sector {sector}");
    }
    bench.assert_lawful();
    rig.stop();
}

#[test]
fn no_write_is_lost_or_doubled_between_two_cards() {
    for product in [
        Product::C5000xBlk,
        Product::ModernBlk,
        Product::ModernBlkDefault,
    ] {
        for blk_stop in [BlkStop::Drains, BlkStop::AtOnce] {
            let plan = Plan {
                blk_stop,
                ..Plan::new(product)
            };
            for features in [must(), ring()] {
                check_writes([plan.clone(), plan.clone()], features);
            }
        }
    }
}

#[test]
fn a_card_that_does_not_stop_keeps_its_queues() {
    let (bench, devices) = Bench::probed([Product::N3000Net; 2].map(Plan::new));
    let mut rig = Rig::start(bench.platform(), &devices[0], must());
    bench.card().set_faults(|faults| faults.stop = Delay::Never);
    let refused = bench.run(rig.move_to(&devices[1]));
    assert_eq!(refused, Err(OpError::Timeout));
    rig.stop();
    bench.assert_lawful();
}
