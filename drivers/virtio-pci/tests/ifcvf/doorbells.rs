//! Which doorbells can be given away.

use ifcvf_card::{Doorbells, Place, Plan, Product};
use vdpa::Platform;
use vdpa::ops::NotificationArea;
use vdpa::platform::PhysAddr;

use crate::bench::Bench;
use crate::rig::{Rig, must};

const PAGE: u64 = 4096;

#[test]
fn a_page_for_each_queue_can_be_given_away() {
    for (place, bar) in [(Place::Bar0, 0), (Place::Bar4, 4)] {
        for product in Product::ALL {
            let (bench, device) = Bench::one(Plan {
                doorbells: Doorbells::PagePerQueue,
                place,
                ..Plan::new(product)
            });
            let base = bench.card().bar_address(bar).unwrap();
            for queue in 0..device.queue_count() {
                let area = device.notification_area(queue).unwrap().unwrap();
                let start = base + PAGE + PAGE * u64::from(queue);
                let right = NotificationArea {
                    base: PhysAddr(start),
                    len: PAGE,
                };
                assert_eq!(area, right);
            }
            bench.assert_lawful();
        }
    }
}

#[test]
fn doorbells_that_share_a_page_stay() {
    for product in Product::ALL {
        let (_bench, device) = Bench::one(Plan::new(product));
        for queue in 0..device.queue_count() {
            assert_eq!(device.notification_area(queue), Ok(None));
        }
    }
}

#[test]
fn a_store_into_the_page_wakes_the_queue() {
    let (bench, device) = Bench::one(Plan {
        doorbells: Doorbells::PagePerQueue,
        ..Plan::new(Product::C5000xNet)
    });
    let rig = Rig::start(bench.platform(), &device, must());
    for queue in 0..device.queue_count() {
        let area = device.notification_area(queue).unwrap().unwrap();
        // SAFETY: the page is the queue's.
        let page = unsafe { bench.platform().map_mmio(area.base, area.len) }.unwrap();
        let before = bench.card().kicks(queue);
        // SAFETY: the queue is empty.
        unsafe { page.write16(0, queue) };
        assert_eq!(bench.card().kicks(queue), before + 1);
    }
    bench.assert_lawful();
    rig.stop();
}

#[test]
fn each_doorbell_is_the_queues_own() {
    for doorbells in [Doorbells::Close, Doorbells::PagePerQueue] {
        let (bench, device) = Bench::one(Plan {
            doorbells,
            ..Plan::new(Product::N3000Net)
        });
        for queue in 0..device.queue_count() {
            device.doorbell(queue).unwrap().ring(0);
            let kicks = (0..device.queue_count()).map(|queue| bench.card().kicks(queue));
            let rung: Vec<_> = kicks.map(|kicks| kicks > 0).collect();
            assert!(rung[..=usize::from(queue)].iter().all(|rung| *rung));
            assert!(!rung[usize::from(queue) + 1..].iter().any(|rung| *rung));
        }
    }
}
