//! The live-migration block: where the words are, what they say, and the log.

use std::collections::BTreeSet;

use ifcvf_card::{BlkStop, Layout, Place, Plan, Product};
use virtq::{DmaAddr, DmaAllocator, DmaBuffer};

use crate::slot::{ACCESS_PLATFORM, Slot, VERSION_1};

fn plan(product: Product) -> Plan {
    Plan {
        queues: 4,
        ..Plan::new(product)
    }
}

#[test]
fn each_layout_has_its_words_where_its_drivers_expect_them() {
    let places = |layout: Layout| [0, 1, 2, 3, 4, 8].map(|queue| layout.place(queue));
    let per_pair = [0x20, 0x24, 0x60, 0x64, 0xa0, 0x120];
    assert_eq!(places(Layout::PerPair), per_pair);
    let per_queue = [0x20, 0x60, 0xa0, 0xe0, 0x120, 0x220];
    assert_eq!(places(Layout::PerQueue), per_queue);
    assert_eq!(places(Layout::Flat), [0x20, 0x24, 0x28, 0x2c, 0x30, 0x40]);
    let layouts = Product::ALL.map(Product::layout);
    let [net, newer_net, blks @ ..] = layouts;
    assert_eq!((net, newer_net), (Layout::PerPair, Layout::Flat));
    assert_eq!(blks, [Layout::PerQueue; 3]);
}

#[test]
fn words_can_be_written_where_they_are_and_nowhere_else() {
    for product in Product::ALL {
        let slot = Slot::new(plan(product));
        let (layout, queues) = (product.layout(), plan(product).queue_count());
        let words: BTreeSet<_> = (0..queues).map(|queue| layout.place(queue)).collect();
        for at in &words {
            let value = u16::try_from(at / 4).unwrap();
            if layout.width() == 2 {
                slot.write16(4, *at, value);
            } else {
                slot.write32(4, *at, value.into());
            }
        }
        for at in &words {
            let value = u16::try_from(at / 4).unwrap();
            let read = match layout.width() {
                2 => slot.read16(4, *at),
                _ => u16::try_from(slot.read32(4, *at)).unwrap(),
            };
            assert_eq!(read, value, "{product}");
        }
        slot.assert_lawful();
        let count = u64::from(layout.has_count()) * 0x28;
        for at in (0x20..0x400)
            .step_by(4)
            .filter(|at| !words.contains(at) && *at != count)
        {
            let before = slot.card.violations().len();
            slot.write32(4, at, 1);
            assert!(
                slot.card.violations().len() > before || before == 64,
                "{product} {at:#x}"
            );
        }
        let other = [4, 2][layout.width() / 4];
        slot.card.write_bar(4, 0x20, &[1; 4][..other]);
        assert_eq!(slot.card.block_writes().last().unwrap().width, other);
    }
}

#[test]
fn a_word_in_the_wrong_width_is_noticed() {
    let slot = Slot::of(Product::C5000xNet);
    slot.write32(4, 0x28, 2);
    slot.assert_blamed("4 bytes written to the word of queue 2");
    let slot = Slot::of(Product::N3000Net);
    slot.read16(4, 0x20);
    slot.assert_blamed("2 bytes read of the word of queue 0");
}

#[test]
fn the_count_must_be_there_before_a_queue_is_enabled() {
    for product in Product::ALL {
        let slot = Slot::of(product);
        assert!(slot.negotiate(VERSION_1 | ACCESS_PLATFORM));
        let line = slot.line(0);
        slot.place(0, &line);
        slot.enable(0);
        match product.layout() {
            Layout::Flat => slot.assert_lawful(),
            Layout::PerPair | Layout::PerQueue => slot.assert_blamed("before the count"),
        }
    }
}

#[test]
fn a_network_queue_stops_with_what_it_has_prefetched_between_its_halves() {
    let slot = Slot::of(Product::N3000Net);
    let mut lines = slot.start(0);
    for _ in 0..5 {
        lines[0].offer(&[], 100);
    }
    slot.kick(0);
    lines[1].offer(&[0; 72], 0);
    slot.kick(1);
    assert_eq!(slot.read32(4, 0x20), 0, "not before it has stopped");
    for queue in [0, 1] {
        slot.stop(queue);
    }
    assert_eq!(slot.read32(4, 0x20), 1 << 16 | 5);
    assert_eq!(slot.read32(4, 0x24), 1 << 16 | 1);
    slot.assert_lawful();
}

#[test]
fn a_queue_with_one_index_puts_back_what_it_has_prefetched() {
    let slot = Slot::of(Product::C5000xNet);
    let mut lines = slot.start(0);
    for _ in 0..5 {
        lines[0].offer(&[], 100);
    }
    slot.kick(0);
    lines[1].offer(&[0; 72], 0);
    slot.kick(1);
    slot.stop(0);
    assert_eq!(slot.read16(4, 0x20), 1);
}

#[test]
fn a_queue_goes_on_where_its_word_says() {
    let slot = Slot::of(Product::N3000Net);
    let mut lines = slot.start(0);
    for round in 0..3 {
        lines[0].offer(&[], 100);
        slot.kick(0);
        lines[1].offer(&[0; 72], 0);
        slot.kick(1);
        assert_eq!(lines[0].take().unwrap().0, 72, "round {round}");
        lines[1].take().unwrap();
        for queue in [0, 1] {
            slot.stop(queue);
            // What comes while it is stopped is not served.
            slot.kick(queue);
            let word = slot.read32(4, 0x20 + 4 * u64::from(queue));
            assert_eq!(word, 0x1_0001 * (round + 1));
            slot.enable(queue);
        }
    }
    slot.assert_lawful();
}

#[test]
fn the_word_of_a_block_queue_is_live() {
    let slot = Slot::of(Product::ModernBlk);
    let mut lines = slot.start(0);
    lines[0].offer(&[0; 16], 513);
    slot.write16(0, 0x1000, 0);
    slot.card.serve();
    assert_eq!(slot.read32(4, 0x20), 1, "taken, and not finished");
    slot.card.serve();
    assert_eq!(slot.read32(4, 0x20), 0x1_0001);
    slot.assert_lawful();
}

#[test]
fn a_block_queue_stops_with_nothing_begun() {
    let slot = Slot::of(Product::ModernBlk);
    let mut lines = slot.start(0);
    lines[0].offer(&[0; 16], 513);
    slot.write16(0, 0x1000, 0);
    slot.card.serve();
    slot.stop(0);
    assert_eq!(slot.read32(4, 0x20), 0x1_0001);
    assert_eq!(lines[0].take().unwrap().0, 513);
}

#[test]
fn a_block_queue_can_drop_what_it_has_begun() {
    let slot = Slot::new(Plan {
        blk_stop: BlkStop::AtOnce,
        ..Plan::new(Product::ModernBlk)
    });
    let mut lines = slot.start(0);
    lines[0].offer(&[0; 16], 513);
    slot.write16(0, 0x1000, 0);
    slot.card.serve();
    slot.stop(0);
    assert_eq!(slot.read32(4, 0x20), 1);
    assert!(lines[0].take().is_none());
}

#[test]
fn a_word_of_a_queue_that_runs_is_not_to_be_written() {
    let slot = Slot::of(Product::ModernBlk);
    slot.start(0);
    slot.write32(4, 0x60, 5);
    slot.assert_blamed("while it runs");
}

#[test]
fn without_the_block_there_is_nothing_to_write_to() {
    let slot = Slot::new(Plan {
        place: Place::Bar4,
        ..Plan::new(Product::N3000Net)
    });
    assert_eq!(slot.card.bar_size(0), 0);
    let mut bytes = [0; 2];
    slot.card.read_bar(4, 0x12, &mut bytes);
    assert_eq!(u16::from_le_bytes(bytes), 5);
    assert_eq!(slot.card.block_writes(), []);
}

/// Tells the card of a log, and switches it on.
fn start_log(slot: &Slot, base: DmaAddr, len: u64) {
    let ([low, high], [end_low, end_high]) = (
        crate::slot::halves(base.0),
        crate::slot::halves(base.0 + len),
    );
    for (at, word) in [(0x10, low), (0x14, high), (0x18, end_low), (0x1c, end_high)] {
        slot.write32(4, at, word);
    }
    slot.write32(4, 0, 1);
}

fn logged(log: &DmaBuffer) -> BTreeSet<u64> {
    let bits = (0_u64..).zip(log.iter()).flat_map(|(at, byte)| {
        (0..8)
            .filter(move |bit| byte >> bit & 1 != 0)
            .map(move |bit| at * 8 + bit)
    });
    bits.collect()
}

#[test]
fn the_log_has_the_pages_of_the_payload() {
    for product in Product::ALL {
        let slot = Slot::of(product);
        let dma = std::sync::Arc::clone(&slot.heap) as std::sync::Arc<dyn DmaAllocator>;
        // Addresses are a little above 4 GiB.
        let log = DmaBuffer::new(&dma, 0x2_1000).unwrap();
        let mut lines = slot.start(0);
        let mut serve = |expected: &mut BTreeSet<u64>| {
            let (request, answer) = match product.kind() {
                ifcvf_card::Kind::Net => (vec![0; 9012], 9012),
                ifcvf_card::Kind::Blk => (vec![0; 16], 8193),
            };
            let first = match product.kind() {
                ifcvf_card::Kind::Net => {
                    let first = lines[0].offer(&[], answer);
                    slot.kick(0);
                    lines[1].offer(&request, 0);
                    slot.kick(1);
                    first
                }
                ifcvf_card::Kind::Blk => {
                    let first = lines[0].offer(&request, answer);
                    slot.kick(0);
                    first
                }
            };
            expected.extend(first..first + 3);
            assert_eq!(lines[0].take().unwrap().0, answer);
        };
        serve(&mut BTreeSet::new());
        let _ = slot.card.take_written_pages();
        start_log(&slot, log.addr(), log.len() as u64);
        let mut expected = BTreeSet::new();
        serve(&mut expected);
        serve(&mut expected);
        slot.write32(4, 0, 0);
        let written = slot.card.take_written_pages();
        assert!(written.is_superset(&expected) && written.len() <= expected.len() + 2);
        assert_eq!(logged(&log), written, "{product}");
        serve(&mut BTreeSet::new());
        assert_eq!(logged(&log), written, "{product}: it is off");
        slot.assert_lawful();
    }
}

#[test]
fn pages_behind_the_end_of_the_log_are_not_logged() {
    let slot = Slot::of(Product::ModernBlk);
    let dma = std::sync::Arc::clone(&slot.heap) as std::sync::Arc<dyn DmaAllocator>;
    let log = DmaBuffer::new(&dma, 0x2_1000).unwrap();
    let mut lines = slot.start(0);
    start_log(&slot, log.addr(), 0x1000);
    lines[0].offer(&[0; 16], 513);
    slot.kick(0);
    assert!(!slot.card.take_written_pages().is_empty());
    assert_eq!(logged(&log), BTreeSet::new());
    slot.write32(4, 0x18, 0);
    slot.assert_blamed("moved while it is on");
}
