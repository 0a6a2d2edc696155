//! The live-migration block: which of its registers the driver uses for which card, and when it
//! leaves it alone.

use std::collections::BTreeSet;

use ifcvf_card::{Place, Plan, Product, VirtioCap};
use vdpa::ops::{Abilities, OpError, QueueState};

use crate::bench::Bench;
use crate::rig::{Rig, multiqueue, must, ring};

/// The log's switch, and the number of queues or pairs that run.
const CONTROL: u64 = 0x00;
const COUNT: u64 = 0x28;

/// A card with four pairs of queues, or queues.
fn four(product: Product) -> Plan {
    let queues = 4;
    let plan = Plan::new(product);
    Plan {
        queues,
        vectors: 16,
        ..plan
    }
}

/// Where the words of the queues must be, from what is public of each card.
fn words(product: Product) -> &'static [u64] {
    match product {
        Product::N3000Net => &[0x20, 0x24, 0x60, 0x64, 0xa0, 0xa4, 0xe0, 0xe4, 0x120],
        Product::C5000xNet => &[0x20, 0x24, 0x28, 0x2c, 0x30, 0x34, 0x38, 0x3c, 0x40],
        _ => &[0x20, 0x60, 0xa0, 0xe0],
    }
}

fn features(product: Product) -> vdpa::Features {
    match product {
        Product::N3000Net | Product::C5000xNet => must() | multiqueue(),
        _ => must(),
    }
}

fn at(avail_index: u16) -> QueueState {
    QueueState::Split { avail_index }
}

#[test]
fn each_queue_starts_from_its_own_word_and_nothing_else_is_written() {
    for product in Product::ALL {
        let (bench, device) = Bench::one(four(product));
        let mut rig = Rig::new(bench.platform(), &device, features(product));
        let index = |queue: usize| 0x1000 + 3 * u16::try_from(queue).unwrap();
        let states: Vec<_> = (0..rig.lines.len())
            .map(|queue| Some(at(index(queue))))
            .collect();
        (0..rig.lines.len()).for_each(|queue| rig.set_index(queue, index(queue)));
        bench.run(rig.run(&states)).unwrap();
        let writes = bench.card().block_writes();
        let words = words(product);
        assert_eq!(words.len(), rig.lines.len());
        for (queue, place) in words.iter().enumerate() {
            let word: Vec<_> = writes
                .iter()
                .filter(|write| write.offset == *place)
                .collect();
            let index = u32::from(index(queue));
            let (width, value) = match product {
                Product::C5000xNet => (2, index),
                _ => (4, index << 16 | index),
            };
            assert_eq!(word.len(), 1, "{product}, queue {queue}");
            assert_eq!((word[0].width, word[0].value), (width, value), "{product}");
        }
        let mut allowed = BTreeSet::from_iter(words.iter().copied());
        allowed.insert(CONTROL);
        if product != Product::C5000xNet {
            allowed.insert(COUNT);
        }
        let written: BTreeSet<_> = writes.iter().map(|write| write.offset).collect();
        assert_eq!(written, allowed, "{product}");
        let log = writes.iter().filter(|write| write.offset == CONTROL);
        assert!(log.into_iter().all(|write| write.value == 0), "{product}");
        // Each queue says so itself once it has stopped.
        bench.run(device.suspend()).unwrap();
        assert_eq!(bench.run(rig.states()).unwrap(), states, "{product}");
        bench.assert_lawful();
        rig.stop();
    }
}

#[test]
fn the_count_goes_up_with_the_queues() {
    let counts = |product| {
        let (bench, device) = Bench::one(four(product));
        let rig = Rig::start(bench.platform(), &device, features(product));
        let writes = bench.card().block_writes();
        let counts = writes.iter().filter(|write| write.offset == COUNT);
        let counts: Vec<_> = counts.map(|write| (write.width, write.value)).collect();
        rig.stop();
        counts
    };
    let pairs = [1, 1, 2, 2, 3, 3, 4, 4, 4].map(|pairs| (4, pairs));
    assert_eq!(counts(Product::N3000Net), pairs);
    let queues = [1, 2, 3, 4].map(|queues| (4, queues));
    assert_eq!(counts(Product::ModernBlk), queues);
    // There it is the word of queue 2.
    assert_eq!(counts(Product::C5000xNet), [(2, 0)]);
}

#[test]
fn a_queue_that_has_run_says_where_it_stands() {
    for product in [Product::N3000Net, Product::C5000xNet] {
        let (bench, device) = Bench::one(four(product));
        let mut rig = Rig::start(bench.platform(), &device, ring() | multiqueue());
        for pair in 0..4 {
            // More receive buffers than frames: the card takes them ahead.
            for _ in 0..3 {
                rig.ask(2 * pair, &[], crate::rig::BUFFER);
            }
            for number in 0..=u32::try_from(pair).unwrap() {
                rig.send(pair, number);
            }
        }
        rig.pass(std::time::Duration::from_millis(1));
        bench.run(device.suspend()).unwrap();
        let states = bench.run(rig.states()).unwrap();
        for (pair, stand) in (1..).zip([0, 2, 4, 6]) {
            assert_eq!(states[stand], Some(at(pair)), "{product}");
            assert_eq!(states[stand + 1], Some(at(pair)), "{product}");
        }
        assert_eq!(states[8], Some(at(0)));
        bench.assert_lawful();
        rig.stop();
    }
}

#[test]
fn indices_wrap() {
    for product in Product::ALL {
        let (bench, device) = Bench::one(Plan::new(product));
        let mut rig = Rig::new(bench.platform(), &device, must());
        let states = vec![Some(at(u16::MAX)); rig.lines.len()];
        (0..rig.lines.len()).for_each(|queue| rig.set_index(queue, u16::MAX));
        bench.run(rig.run(&states)).unwrap();
        bench.run(device.suspend()).unwrap();
        assert_eq!(bench.run(rig.states()).unwrap(), states, "{product}");
        bench.assert_lawful();
        rig.stop();
    }
}

#[test]
fn words_that_make_no_sense_are_not_believed() {
    // Used before it was made available; more taken than there is room for; and a disk that has
    // dropped something.
    let nonsense = [
        (Product::N3000Net, 0x0005_0004),
        (Product::N3000Net, 0x0000_0021),
        (Product::ModernBlk, 0x0005_0004),
        (Product::ModernBlk, 0x0004_0005),
    ];
    for (product, word) in nonsense {
        let (bench, device) = Bench::one(Plan::new(product));
        let rig = Rig::start(bench.platform(), &device, must());
        bench
            .card()
            .set_faults(|faults| faults.ring_words = Some(word));
        let answer = bench.run(device.suspend());
        assert_eq!(answer, Err(OpError::Broken), "{product} {word:#x}");
        bench.card().set_faults(|faults| faults.ring_words = None);
        rig.stop();
        let rig = Rig::start(bench.platform(), &device, must());
        rig.stop();
        bench.assert_lawful();
    }
}

/// A card whose BAR 4 is what the test says, and not the block that its id promises.
#[track_caller]
fn assert_left_alone(plan: Plan) {
    let (bench, device) = Bench::one(plan);
    assert_eq!(device.abilities(), Abilities::empty());
    let rig = Rig::start(bench.platform(), &device, must());
    assert_eq!(bench.run(device.suspend()), Err(OpError::Unsupported));
    assert_eq!(
        bench.run(device.queue_state(0)).map(drop),
        Err(OpError::WrongState)
    );
    let stopped = bench.run(device.stop_queue(0));
    assert_eq!(stopped, Err(OpError::Unsupported));
    assert_eq!(bench.card().block_writes(), []);
    rig.stop();
    let refused = device.set_queue_state(0, at(1));
    assert!(refused.is_err());
    assert_eq!(bench.card().block_writes(), []);
    bench.assert_lawful();
}

#[test]
fn the_common_configuration_in_its_place_is_not_taken_for_it() {
    for product in Product::ALL {
        assert_left_alone(Plan {
            place: Place::Bar4,
            ..Plan::new(product)
        });
    }
}

#[test]
fn a_bar_that_is_too_small_or_not_there_is_not_taken_for_it() {
    for product in Product::ALL {
        for size in [0, 0x20] {
            assert_left_alone(Plan {
                block_bar: Some(size),
                ..Plan::new(product)
            });
        }
    }
}

#[test]
fn a_bar_that_holds_a_structure_is_not_taken_for_it() {
    let plan = Plan::new(Product::N3000Net);
    let capability = |kind, offset, length| VirtioCap {
        kind,
        cap_len: if kind == 2 { 20 } else { 16 },
        bar: 0,
        offset,
        length,
        multiplier: 4,
    };
    let mut capabilities = vec![
        capability(1, 0, 0x38),
        capability(2, 0x1000, 20),
        capability(3, 0x40, 1),
        capability(4, 0x80, 12),
    ];
    capabilities[3].bar = 4;
    capabilities[3].offset = 0x60;
    let (bench, device) = Bench::one(Plan {
        capabilities: Some(capabilities),
        ..plan
    });
    assert_eq!(device.abilities(), Abilities::empty());
    assert_eq!(bench.card().block_writes(), []);
}

#[test]
fn a_bar_that_holds_the_interrupt_table_is_not_taken_for_it() {
    let (bench, device) = Bench::one(Plan {
        table_at: Some(0x24),
        ..Plan::new(Product::N3000Net)
    });
    assert_eq!(device.abilities(), Abilities::empty());
    // The entries are masked, and nothing else is done there.
    let table = 0x20..0x20 + 16 * u64::from(bench.card().vectors());
    let mut writes = bench.card().block_writes().into_iter();
    assert!(writes.all(|write| table.contains(&write.offset) && write.offset % 16 == 12));
}
