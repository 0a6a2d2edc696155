//! Which functions become devices, and that a failed probe leaves no trace.

use std::time::Duration;

use ifcvf_card::{Delay, ListFault, Place, Plan, Product, VirtioCap};
use vdpa::Platform;
use vdpa::bus::{BusDevice, Driver};
use vdpa::device::VdpaBus;
use vdpa::ops::Abilities;
use vdpa::testing::FakePlatform;
use virtio_pci::ifcvf::{Ifcvf, QEMU_IDS};

use crate::bench::Bench;

const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const ISR: u8 = 3;
const DEVICE: u8 = 4;

/// The right capabilities of a card with two pairs, in the order of their types.
fn right() -> Vec<VirtioCap> {
    let capability = |kind, offset, length| VirtioCap {
        kind,
        cap_len: if kind == NOTIFY { 20 } else { 16 },
        bar: 0,
        offset,
        length,
        multiplier: 4,
    };
    vec![
        capability(COMMON, 0, 0x38),
        capability(NOTIFY, 0x1000, 20),
        capability(ISR, 0x40, 1),
        capability(DEVICE, 0x80, 12),
    ]
}

fn net() -> Plan {
    Plan::new(Product::N3000Net)
}

/// A card whose capabilities have been changed.
fn changed(change: impl FnOnce(&mut Vec<VirtioCap>)) -> Plan {
    let mut capabilities = right();
    change(&mut capabilities);
    Plan {
        capabilities: Some(capabilities),
        ..net()
    }
}

#[test]
fn every_card_becomes_a_device_of_its_type() {
    for product in Product::ALL {
        let (bench, vdpa) = Bench::one(Plan::new(product));
        assert_eq!(vdpa.device_type(), product.kind().device_type());
        assert_eq!(vdpa.vendor_id(), 0x8086);
        assert_eq!(vdpa.node().path(), "pci0000:00:01.0 -> vdpa0");
        assert_eq!(vdpa.queue_count(), Plan::new(product).queue_count());
        let driver = bench.function(0).node().driver();
        assert_eq!(driver.as_deref(), Some("ifcvf"));
        bench.assert_lawful();
        drop(vdpa);
        bench.run(bench.machine.pci.remove_driver("ifcvf"));
        assert!(bench.vdpa.devices().is_empty());
        bench.assert_untouched();
        bench.assert_lawful();
    }
}

#[test]
fn the_ids_are_those_of_the_cards_and_no_others() {
    let driver = Ifcvf::new(FakePlatform::new(), VdpaBus::new("vdpa"));
    let ids = driver.ids().iter().map(|row| {
        assert_eq!(row.devices.start(), row.devices.end());
        let start = *row.devices.start();
        [row.vendor, Some(start), row.subvendor, row.subdevice].map(Option::unwrap)
    });
    let cards = Product::ALL.map(|product| {
        let id = product.id();
        [id.vendor, id.device, id.subvendor, id.subdevice]
    });
    assert_eq!(ids.collect::<Vec<_>>(), cards);
    let more = driver.with_ids(QEMU_IDS);
    assert_eq!(more.ids().len(), 7);
    assert_eq!(more.ids()[5..], QEMU_IDS);
}

#[test]
fn right_capabilities_are_found_wherever_they_are_in_the_list() {
    Bench::one(changed(|_| ()));
    Bench::one(changed(|list| list.reverse()));
    // Of several acceptable ones the first counts (VIRTIO 1.2, 4.1.4.2), and others are passed
    // over.
    Bench::one(changed(|list| {
        list.insert(0, VirtioCap { bar: 7, ..list[0] });
        list.push(VirtioCap {
            offset: 0x400,
            ..list[1]
        });
    }));
}

#[test]
fn each_structure_must_be_there() {
    for kind in [COMMON, NOTIFY, ISR] {
        Bench::new([changed(|list| list.retain(|it| it.kind != kind))]).assert_refused();
    }
    Bench::new([changed(Vec::clear)]).assert_refused();
}

#[test]
fn a_structure_outside_its_bar_is_refused() {
    type Change = fn(&mut VirtioCap);
    let wrong: [Change; 9] = [
        |it| it.bar = 6,
        |it| it.bar = 1,
        |it| it.bar = 0xff,
        |it| it.offset = 0x2000,
        |it| it.offset = 0xffff_fffc,
        |it| it.length = 0x2001,
        |it| it.length = 0xffff_ffff,
        |it| it.cap_len = 8,
        |it| it.length = 0,
    ];
    for kind in 0..4 {
        for change in wrong {
            let plan = changed(|list| change(&mut list[kind]));
            Bench::new([plan]).assert_refused();
        }
    }
}

#[test]
fn an_offset_and_a_length_whose_sum_wraps_are_refused() {
    for (offset, length) in [
        (0xffff_fff0, 0x48),
        (0x80, 0xffff_ff80),
        (0x1000, 0xffff_f038),
    ] {
        for kind in 0..4 {
            let plan = changed(|list| (list[kind].offset, list[kind].length) = (offset, length));
            Bench::new([plan]).assert_refused();
        }
    }
}

#[test]
fn a_list_without_an_end_or_out_of_its_place_is_refused() {
    for list in [ListFault::Cycle, ListFault::Misplaced] {
        Bench::new([Plan { list, ..net() }]).assert_refused();
    }
}

#[test]
fn a_card_that_does_not_offer_what_it_must_is_refused() {
    for missing in [virtio::F::VERSION_1, virtio::F::ACCESS_PLATFORM] {
        for product in Product::ALL {
            let plan = Plan::new(product);
            let missing = vdpa::Features::from(missing).bits();
            let features = plan.features & !missing;
            Bench::new([Plan { features, ..plan }]).assert_refused();
        }
    }
}

#[test]
fn a_card_that_never_leaves_reset_is_given_up_after_a_deadline() {
    let bench = Bench::new([net()]);
    bench
        .card()
        .set_faults(|faults| faults.reset = Delay::Never);
    bench.assert_refused();
    let waited = bench.platform().now();
    assert!(waited >= Duration::from_millis(500) && waited < Duration::from_secs(3));
    // And it can be taken when it has come to itself.
    bench
        .card()
        .set_faults(|faults| faults.reset = Delay::AtOnce);
    bench.card().reset_function();
    bench.run(bench.machine.pci.rescan());
}

#[test]
fn a_slow_reset_is_waited_for() {
    let bench = Bench::new([net()]);
    bench
        .card()
        .set_faults(|faults| faults.reset = Delay::After(50));
    bench.probe();
    assert_eq!(bench.vdpa.devices().len(), 1);
    bench.assert_lawful();
}

#[test]
fn an_interrupt_table_outside_its_bar_is_refused() {
    for table_at in [0x2002, 0xffff_fffa, 0x1, 0x6, 0x1fc2] {
        Bench::new([Plan {
            table_at: Some(table_at),
            ..net()
        }])
        .assert_refused();
    }
}

#[test]
fn a_failed_registration_is_undone() {
    let bench = Bench::new([net()]);
    bench.vdpa.close().unwrap();
    bench.assert_refused();
}

#[test]
fn a_card_that_somebody_has_is_left_alone() {
    let bench = Bench::new([net()]);
    let claim = bench.function(0).claim().unwrap();
    let before = bench.card().snapshot();
    bench.probe();
    assert!(bench.vdpa.devices().is_empty());
    assert_eq!(bench.card().snapshot(), before);
    drop(claim);
    bench.run(bench.machine.pci.rescan());
    assert_eq!(bench.vdpa.devices().len(), 1);
}

#[test]
fn a_card_without_msix_becomes_a_device() {
    let (bench, vdpa) = Bench::one(Plan {
        vectors: 0,
        ..net()
    });
    assert_eq!(vdpa.queue_interrupt(0), Ok(None));
    bench.assert_lawful();
}

#[test]
fn a_card_that_runs_is_stopped_before_it_may_reach_memory() {
    let bench = Bench::new([net()]);
    let resets = bench.card().counters().resets;
    bench.probe();
    // Once before it is looked at, and once afterwards.
    assert_eq!(bench.card().counters().resets, resets + 2);
    bench.assert_lawful();
}

#[test]
fn a_card_without_the_block_is_a_plain_one() {
    let (bench, vdpa) = Bench::one(Plan {
        place: Place::Bar4,
        ..net()
    });
    assert_eq!(vdpa.abilities(), Abilities::empty());
    bench.assert_lawful();
}
