//! Which doorbells can be given away, and what is told of interrupts.

use std::sync::Arc;

use vdpa::Features;
use vdpa::bus::BusDevice;
use vdpa::ops::NotificationArea;
use vdpa::platform::PhysAddr;

use crate::fakes::virtio::{MULTIPLIER, Plan, VirtioCap, version_1};

use super::{Bench, Calls, NAME};

const PAGE: u32 = 4096;

/// The usual function, with the notification structure changed.
fn plan(offset: u32, length: u32, multiplier: u32, queues: Vec<u16>) -> Plan {
    let mut capabilities = VirtioCap::usual();
    for capability in capabilities.iter_mut().filter(|it| it.kind == 2) {
        capability.offset = offset;
        capability.length = length;
        capability.multiplier = multiplier;
    }
    Plan {
        queues,
        capabilities,
        bar4_size: 0x1_0000,
        ..Plan::default()
    }
}

/// Where the doorbells of the queues lie in BAR 4, as far as they can be given away.
fn areas(plan: Plan) -> Vec<Option<u64>> {
    let (bench, vdpa) = Bench::probed(plan);
    let bar = bench.function.bar_address(4).unwrap();
    let area = |queue| {
        let area = vdpa.notification_area(queue).unwrap();
        area.map(|NotificationArea { base, len }| {
            assert_eq!(len, u64::from(PAGE));
            let PhysAddr(base) = base;
            base - bar
        })
    };
    (0..vdpa.queue_count()).map(area).collect()
}

#[test]
fn a_page_per_queue_can_be_given_away() {
    let plan = plan(0x3000, 3 * PAGE, PAGE, vec![64; 3]);
    assert_eq!(areas(plan), [Some(0x3000), Some(0x4000), Some(0x5000)]);
}

#[test]
fn doorbells_that_share_a_page_stay() {
    assert_eq!(areas(Plan::default()), [None; 3]);
    let close = plan(0x3000, PAGE, MULTIPLIER, vec![64; 2]);
    assert_eq!(areas(close), [None; 2]);
    let same = plan(0x3000, PAGE, 0, vec![64; 2]);
    assert_eq!(areas(same), [None; 2]);
    let half = plan(0x3000, 2 * PAGE, PAGE / 2, vec![64; 3]);
    assert_eq!(areas(half), [None, None, Some(0x4000)]);
}

#[test]
fn a_single_doorbell_has_the_page_for_itself() {
    let alone = plan(0x3000, PAGE, MULTIPLIER, vec![64]);
    assert_eq!(areas(alone), [Some(0x3000)]);
}

#[test]
fn a_doorbell_that_does_not_start_a_page_or_fill_it_stays() {
    let misplaced = plan(0x3800, 2 * PAGE, PAGE, vec![64; 2]);
    assert_eq!(areas(misplaced), [None; 2]);
    let short = plan(0x3000, PAGE + 2, PAGE, vec![64; 2]);
    assert_eq!(areas(short), [Some(0x3000), None]);
}

#[test]
fn a_page_with_something_else_in_it_stays() {
    // The device says that its configuration lies among its doorbells.
    let overlapping = plan(0x1000, 3 * PAGE, PAGE, vec![64; 3]);
    assert_eq!(areas(overlapping), [None, None, Some(0x3000)]);
}

#[test]
fn a_page_of_the_interrupt_table_stays() {
    let mut plan = plan(0, PAGE, PAGE, vec![64]);
    for capability in plan.capabilities.iter_mut().filter(|it| it.kind == 2) {
        capability.bar = 1;
    }
    let (_bench, vdpa) = Bench::probed(plan);
    assert_eq!(vdpa.notification_area(0), Ok(None));
}

#[test]
fn a_doorbell_that_wants_more_than_an_index_stays() {
    let with_data = version_1() | Features::from(virtio::F::NOTIFICATION_DATA).bits();
    let (bench, vdpa) = Bench::probed(Plan {
        features: with_data,
        ..plan(0x3000, 3 * PAGE, PAGE, vec![64; 3])
    });
    assert!(vdpa.notification_area(0).unwrap().is_some());
    bench.start(&vdpa, with_data, &Calls::default()).unwrap();
    assert_eq!(vdpa.notification_area(0), Ok(None));
}

#[test]
fn a_queue_with_a_vector_for_itself_tells_its_message_and_counts() {
    let (bench, vdpa) = Bench::probed(Plan::default());
    assert_eq!(vdpa.queue_interrupt(1), Ok(None));
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    let messages = [0, 1, 2].map(|queue| vdpa.queue_interrupt(queue).unwrap().unwrap());
    for (index, message) in messages.iter().enumerate() {
        assert!(!messages[..index].contains(message));
    }
    bench.machine.platform.fire(messages[1]);
    bench.device.interrupt_queue(1, &bench.machine.platform);
    let counted = [("interrupts", 2), ("shared_interrupts", 0)];
    assert_eq!(vdpa.queue_statistics(1).unwrap(), counted);
    assert_eq!(vdpa.queue_statistics(0).unwrap()[0], ("interrupts", 0));
    bench.run(vdpa.reset()).unwrap();
    assert_eq!(vdpa.queue_interrupt(1), Ok(None));
    assert_eq!(vdpa.queue_statistics(1).unwrap(), counted);
}

#[test]
fn queues_that_share_a_vector_have_no_message_of_their_own() {
    let (bench, vdpa) = Bench::probed(Plan {
        vectors: 2,
        ..Plan::default()
    });
    bench.start(&vdpa, version_1(), &Calls::default()).unwrap();
    assert_eq!(vdpa.queue_interrupt(1), Ok(None));
    bench.device.interrupt_queue(1, &bench.machine.platform);
    let counted = [("interrupts", 0), ("shared_interrupts", 1)];
    assert_eq!(vdpa.queue_statistics(1).unwrap(), counted);
}

#[test]
fn the_isolation_unit_is_the_function() {
    let (bench, vdpa) = Bench::probed(Plan::default());
    let function = bench.machine.device(NAME);
    assert!(Arc::ptr_eq(vdpa.dma_device(), function.node()));
    let facts = vdpa.node().report().unwrap().facts;
    let id = facts.iter().find(|(name, _)| *name == "requester id");
    // Segment 0, bus 0, device 1, function 0.
    assert_eq!(id.unwrap().1, "0x0008");
}
